"""What every records store must do with revisions and snapshots; a part of `WorkspaceRecordsConformance`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.ids import new_id, new_workspace_id
from atoll.domain.workspace import (
    Revision,
    RevisionState,
    Workspace,
)
from atoll.records.base import Records
from atoll.testing.records_conformance import together
from atoll.testing.workspace_records_examples import (
    T0,
    OnStores,
    event,
    lineage,
    made,
    revised,
    revision,
    snapshot,
    workspace,
)


class RevisionRecordsConformance(OnStores):
    """See `WorkspaceRecordsConformance`."""

    async def test_a_revision_becomes_the_head_with_the_other_changes_in_one_step(self, records: Records) -> None:
        base = await made(records)
        second = revision(base, 2, parent=base.head)
        changed = replace(base, tree_id="tree_2", updated_at=T0 + timedelta(seconds=1))
        after = await records.add_revision(second, changed, event(base.id, "workspace.revised"))
        assert after == replace(changed, head=second.id, version=base.version + 1)
        assert await records.get_workspace(base.id) == after
        assert await records.get_revision(second.id) == second
        assert await records.find_revision(base.id, 2) == second
        assert await records.find_revision(base.id, 3) is None
        late = revision(base, 3)
        with pytest.raises(StaleVersion):
            await records.add_revision(late, base, event(base.id, "workspace.late"))
        twice = revision(base, 2)
        with pytest.raises(Conflict):
            await records.add_revision(twice, after, event(base.id, "workspace.late"))
        for refused in (late, twice):
            assert await records.get_revision(refused.id) is None
        assert await records.get_workspace(base.id) == after
        actions = [stored.action for stored in await records.list_events(target=base.id)]
        assert actions == ["workspace.created", "workspace.revised"]

    async def test_revisions_are_listed_newest_first_in_pages(self, records: Records) -> None:
        base, added = await revised(records, await made(records), 6)
        await made(records, "other")
        newest = added[::-1]
        listed = await records.list_revisions(workspace=base.id)
        assert [found.number for found in listed] == [7, 6, 5, 4, 3, 2, 1]
        assert listed[:-1] == newest
        assert await records.list_revisions(workspace=base.id, before=5, limit=2) == listed[3:5]
        assert await records.list_revisions(workspace=base.id, before=1) == []
        assert await records.list_revisions(workspace="ws_none") == []
        assert len(await records.list_revisions()) == 8

    async def test_pages_of_a_lineage_s_revisions_leave_none_out(self, records: Records) -> None:
        base = await made(records)
        expected = {base.head}
        for n in range(4):
            fork = replace(base, id=new_workspace_id(), name=f"fork {n}", head=new_id("rev"))
            await records.add_workspace(fork, revision(fork), None, event())
            _, added = await revised(records, fork, n)
            expected |= {fork.head, *(one.id for one in added)}
        found: list[Revision] = []
        before: int | None = None
        while page := await records.list_revisions(lineage=base.lineage, before=before, limit=2):
            found += page
            before = page[-1].number
        assert len(found) == len(expected)
        assert {one.id for one in found} == expected

    async def test_a_revision_can_be_marked_corrupt(self, records: Records) -> None:
        base = await made(records)
        await records.set_revision_state(base.head, RevisionState.CORRUPT, event(base.id, "revision.corrupt"))
        stored = await records.get_revision(base.head)
        assert stored is not None
        assert stored.state is RevisionState.CORRUPT
        with pytest.raises(NotFound):
            await records.set_revision_state("rev_none", RevisionState.CORRUPT, event("none"))
        assert await records.list_events(target="none") == []

    async def test_heads_and_revisions_of_snapshots_are_never_deleted(self, records: Records) -> None:
        base, added = await revised(records, await made(records), 510)
        await records.add_snapshot(snapshot(added[3]), event())
        everything = [found.id for found in await records.list_revisions(workspace=base.id, limit=10_000)]
        asked = [*everything, "rev_none"]
        assert await records.delete_revisions(asked, event("prune", "revisions.pruned")) == len(everything) - 2
        assert [found.id for found in await records.list_revisions()] == [base.head, added[3].id]
        assert await records.delete_revisions(asked, event("prune", "revisions.pruned")) == 0
        assert len(await records.list_events(target="prune")) == 1

    async def test_snapshots_are_unique_per_owner_by_id_and_per_workspace_by_name(self, records: Records) -> None:
        base, other = await made(records), await made(records, "other", "key_1")
        full = snapshot(revision(base), name="vor ☃", entries=2**40, bytes=2**50, kept=True)
        await records.add_snapshot(full, event(full.id, "snapshot.created"))
        assert await records.find_snapshot("key_0", full.id) == full
        assert await records.find_snapshot("key_1", full.id) is None
        for refused in (replace(full, name="new"), replace(full, id="snap_2")):
            with pytest.raises(Conflict):
                await records.add_snapshot(refused, event(full.id, "snapshot.refused"))
        await records.add_snapshot(snapshot(revision(other), full.id, owner="key_1", name=full.name), event())
        for unnamed in ("snap_3", "snap_4"):
            await records.add_snapshot(snapshot(revision(base), unnamed), event())
        with pytest.raises(NotFound):
            await records.add_snapshot(snapshot(revision(workspace(lineage())), "snap_5"), event())
        assert [stored.action for stored in await records.list_events(target=full.id)] == ["snapshot.created"]

    async def test_snapshots_are_listed_newest_first_and_deleted_of_their_owner_only(self, records: Records) -> None:
        base, other = await made(records), await made(records, "other", "key_1")
        own = lineage()
        await records.add_lineage(own)
        stored = [
            snapshot(revision(base), "snap_0"),
            snapshot(revision(other), "snap_1", owner="key_1", created_at=T0 - timedelta(seconds=1)),
            snapshot(revision(base), "snap_2", lineage=own.id, created_at=T0 - timedelta(seconds=2)),
        ]
        for each in reversed(stored):
            await records.add_snapshot(each, event())
        assert await records.list_snapshots() == stored
        assert await records.list_snapshots(limit=1) == stored[:1]
        assert await records.list_snapshots(owner="key_0") == stored[::2]
        assert await records.list_snapshots(workspace=other.id) == stored[1:2]
        assert await records.list_snapshots(lineage=own.id) == stored[2:]
        assert not await records.delete_snapshot("key_1", "snap_0", event("gone"))
        assert await records.delete_snapshot("key_0", "snap_0", event("gone", "snapshot.deleted"))
        assert not await records.delete_snapshot("key_0", "snap_0", event("gone"))
        assert len(await records.list_events(target="gone")) == 1
        assert await records.list_snapshots() == stored[1:]

    async def test_of_concurrent_revisions_of_one_version_one_wins(self, stores: tuple[Records, Records]) -> None:
        contested = await made(stores[0])
        for number in range(2, 6):
            rivals = [revision(contested, number, actor=f"racer {n}") for n in range(10)]
            adds = [
                stores[n % 2].add_revision(one, contested, event(one.actor, "workspace.revised"))
                for n, one in enumerate(rivals)
            ]
            outcomes = await together(*adds)
            (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Workspace)]
            assert sum(isinstance(outcome, StaleVersion) for outcome in outcomes) == 9
            head = await stores[1].get_revision(winner.head)
            assert head is not None
            assert (await stores[1].list_events())[-1].target == head.actor
            assert len(await stores[1].list_revisions(workspace=contested.id)) == number
            contested = winner

    async def test_a_snapshot_and_a_prune_at_once_leave_no_snapshot_without_its_revision(
        self, stores: tuple[Records, Records]
    ) -> None:
        _, added = await revised(stores[0], await made(stores[0]), 20)
        for n, one in enumerate(added[:-1]):
            taking = stores[n % 2].add_snapshot(snapshot(one, f"snap_{n}"), event())
            pruning = stores[(n + 1) % 2].delete_revisions([one.id], event())
            took, pruned = await together(taking, pruning)
            there = await stores[0].get_revision(one.id) is not None
            assert (took is None) is there is (pruned == 0)
            assert took is None or isinstance(took, NotFound)
