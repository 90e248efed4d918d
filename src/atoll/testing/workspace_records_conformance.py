"""What every records store must do with workspaces, as tests: subclass as `RecordsConformance`, with its `stores`.

Each test holds one sentence of the contract in `atoll.records.workspaces`; some race.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from atoll.domain import crash
from atoll.domain.errors import Conflict, InvalidInput, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.ids import new_id, new_workspace_id
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import (
    Permission,
    Quota,
    Reason,
    RevisionState,
    Share,
    Workspace,
)
from atoll.records.base import Records
from atoll.records.workspaces import SharedWorkspace
from atoll.testing.chunk_records_conformance import ChunkRecordsConformance
from atoll.testing.records_conformance import together
from atoll.testing.revision_records_conformance import RevisionRecordsConformance
from atoll.testing.workspace_records_examples import (
    KEY,
    T0,
    chunks,
    event,
    lineage,
    made,
    pack,
    revised,
    revision,
    snapshot,
    workspace,
)


class WorkspaceRecordsConformance(RevisionRecordsConformance, ChunkRecordsConformance):
    """Give `stores`: two started stores of the same data, empty, closed afterwards (one store twice will do)."""

    async def test_a_workspace_is_returned_as_it_was_stored_every_field_of_it(self, records: Records) -> None:
        own = lineage()
        full = workspace(
            own,
            "büro ☃",
            description="two\nlines 😀",
            tags=("a", "b c", "", "é\0"),
            quota=Quota(2**50, 2**40),
            runtime="local",
            tree_id="tree_1",
            sandbox_id="sess_1",
            sandbox_config="c2VhbGVk",
            forked_from="rev_1",
            automatic=False,
            updated_at=T0 + timedelta(microseconds=1),
            deleted_at=T0 + timedelta(days=400),
            version=7,
        )
        first = revision(
            full,
            parent="rev_elsewhere",
            reason=Reason.MERGE,
            entries=2**40,
            bytes=2**60,
            stored_bytes=2**50,
            message="ü\n",
            merged="rev_other",
            state=RevisionState.CORRUPT,
        )
        await records.add_workspace(full, first, own, event(full.id, "workspace.created"))
        assert await records.get_workspace(full.id) == full
        assert await records.get_revision(first.id) == first
        assert await records.get_lineage(own.id) == own
        bare = await made(records, "bare")
        assert await records.get_workspace(bare.id) == bare
        assert len(await records.list_events(target=full.id)) == 1

    async def test_what_does_not_exist_is_none(self, records: Records) -> None:
        for unknown in ("ws_none", "", "x' OR '1'='1", "nul\0", "\ud800"):
            assert await records.get_workspace(unknown) is None
            assert await records.find_workspace("key_0", unknown) is None
            assert await records.get_revision(unknown) is None
            assert await records.find_revision(unknown, 1) is None
            assert await records.find_snapshot("key_0", unknown) is None
            assert await records.get_share("ws_none", unknown) is None
            assert await records.get_lineage(unknown) is None

    async def test_an_owner_s_names_are_unique_among_those_not_deleted(self, records: Records) -> None:
        first = await made(records)
        assert await records.find_workspace("key_0", "code") == first
        second = workspace(lineage(), "code")
        own = lineage()
        second = replace(second, lineage=own.id)
        with pytest.raises(Conflict):
            await records.add_workspace(second, revision(second), own, event(second.id))
        assert await records.get_workspace(second.id) is None
        assert await records.get_lineage(own.id) is None
        assert await records.list_events(target=second.id) == []
        await made(records, owner="key_1")
        await records.swap_workspace(replace(first, deleted_at=T0), event())
        assert await records.find_workspace("key_0", "code") is None
        await records.add_workspace(second, revision(second), own, event(second.id))
        assert await records.find_workspace("key_0", "code") == second

    async def test_a_swap_to_another_s_name_is_a_conflict_and_changes_nothing(self, records: Records) -> None:
        first, other = await made(records), await made(records, "other")
        with pytest.raises(Conflict) as raised:
            await records.swap_workspace(replace(other, name="code"), event(other.id, "workspace.renamed"))
        assert not isinstance(raised.value, StaleVersion)
        with pytest.raises(Conflict):
            await records.add_revision(revision(other, 2), replace(other, name="code"), event())
        assert await records.get_workspace(other.id) == other
        stored = await records.swap_workspace(replace(first, name="third"), event())
        assert await records.find_workspace("key_0", "third") == stored
        assert stored.version == first.version + 1

    async def test_a_swap_of_an_old_version_or_of_nothing_is_refused(self, records: Records) -> None:
        first = await made(records)
        stored = await records.swap_workspace(replace(first, tree_id="tree_1", runtime="local"), None)
        happened = len(await records.list_events())
        with pytest.raises(StaleVersion):
            await records.swap_workspace(replace(first, name="late"), event())
        with pytest.raises(NotFound):
            await records.swap_workspace(workspace(lineage()), event())
        assert await records.get_workspace(first.id) == stored
        assert len(await records.list_events()) == happened

    async def test_text_that_no_database_holds_names_its_field(self, records: Records) -> None:
        if type(records).__name__ == "MemoryRecords":
            pytest.skip("holds anything")
        own = lineage()
        for wrong in ({"name": "nul\0"}, {"description": "\ud800"}):
            new = workspace(own, **wrong)
            with pytest.raises(InvalidInput) as raised:
                await records.add_workspace(new, revision(new), own, event())
            assert raised.value.field in wrong

    async def test_the_quota_counts_the_owner_s_workspaces_that_are_not_deleted(self, records: Records) -> None:
        gone = await made(records, "gone")
        await records.swap_workspace(replace(gone, deleted_at=T0), event())
        await made(records, "one")
        await made(records, "other", "key_1")
        own = lineage()
        new = workspace(own, "two")
        with pytest.raises(QuotaExceeded):
            await records.add_workspace(new, revision(new), own, event(), quota=1)
        assert await records.get_workspace(new.id) is None
        await records.add_workspace(new, revision(new), own, event(), quota=2)

    async def test_a_fork_shares_a_lineage(self, records: Records) -> None:
        base = await made(records)
        fork = replace(base, id=new_workspace_id(), name="fork", head=new_id("rev"), forked_from=base.head)
        await records.add_workspace(fork, revision(fork), None, event())
        assert await records.get_workspace(fork.id) == fork
        assert {found.workspace for found in await records.list_revisions(lineage=base.lineage)} == {base.id, fork.id}

    async def test_lists_of_workspaces_are_newest_first_and_filtered(self, records: Records) -> None:
        stored = [
            await made(
                records,
                f"n{n}",
                f"key_{n % 2}",
                created_at=T0 - timedelta(seconds=n),
                deleted_at=T0 if n % 3 == 0 else None,
                tree_id=f"tree_{n}" if n % 4 == 0 else None,
            )
            for n in random.Random(1).sample(range(12), 12)
        ]
        stored.sort(key=lambda one: one.created_at, reverse=True)
        kept = [one for one in stored if one.deleted_at is None]
        assert await records.list_workspaces() == kept
        assert await records.list_workspaces(limit=3) == kept[:3]
        assert await records.list_workspaces(deleted=None) == stored
        assert await records.list_workspaces(deleted=True) == [one for one in stored if one.deleted_at]
        assert await records.list_workspaces(owner="key_1") == [one for one in kept if one.owner == "key_1"]
        assert await records.list_workspaces(with_tree=True) == [one for one in kept if one.tree_id]
        assert await records.list_workspaces(owner="key_none") == []

    async def test_a_deleted_workspace_is_forgotten_with_all_that_hangs_on_it(self, records: Records) -> None:
        going, other = await made(records), await made(records, "other")
        for each in (going, other):
            await records.add_snapshot(snapshot(revision(each), f"snap_{each.name}", owner=each.owner), event())
            await records.put_share(Share(each.id, "key_9", Permission.READ, T0), event())
        with pytest.raises(Conflict):
            await records.delete_workspace_records(going.id)
        await records.swap_workspace(replace(going, deleted_at=T0), event())
        for _ in range(2):
            await records.delete_workspace_records(going.id)
            assert await records.get_workspace(going.id) is None
            assert [found.id for found in await records.list_revisions()] == [other.head]
            assert [found.workspace for found in await records.list_snapshots()] == [other.id]
            assert await records.list_shares(going.id) == []
            assert len(await records.list_shares(other.id)) == 1
        with pytest.raises(NotFound):
            await records.add_revision(revision(going, 2), going, event())
        with pytest.raises(NotFound):
            await records.add_snapshot(snapshot(revision(going), "snap_late"), event())

    async def test_a_share_is_put_replaced_and_taken_back(self, records: Records) -> None:
        base = await made(records)
        read = Share(base.id, "key_1", Permission.READ, T0)
        admin = Share(base.id, "key_1", Permission.ADMIN, T0 + timedelta(seconds=1))
        await records.put_share(Share(base.id, "key_2", Permission.WRITE, T0), event())
        for share in (read, admin):
            await records.put_share(share, event(share.principal, "workspace.shared"))
            assert await records.get_share(base.id, "key_1") == share
        assert [share.principal for share in await records.list_shares(base.id)] == ["key_1", "key_2"]
        assert await records.delete_share(base.id, "key_1", event("key_1", "workspace.revoked"))
        assert not await records.delete_share(base.id, "key_1", event("key_1", "workspace.revoked"))
        assert await records.get_share(base.id, "key_1") is None
        assert len(await records.list_events(target="key_1")) == 3
        with pytest.raises(NotFound):
            await records.put_share(replace(read, workspace="ws_none"), event("key_1"))
        assert len(await records.list_events(target="key_1")) == 3

    async def test_workspaces_shared_with_one_are_listed_newest_first(self, records: Records) -> None:
        stored = [await made(records, f"n{n}", "key_9", created_at=T0 - timedelta(seconds=n)) for n in range(4)]
        stored.append(await made(records, "mine", "key_1"))
        for each in stored:
            await records.put_share(Share(each.id, "key_1", Permission.WRITE, T0), event())
        await records.put_share(Share(stored[2].id, "key_2", Permission.READ, T0), event())
        await records.swap_workspace(replace(stored[1], deleted_at=T0), event())
        expected = [SharedWorkspace(stored[n], Permission.WRITE) for n in (0, 2, 3)]
        assert await records.list_shared_workspaces("key_1") == expected
        assert await records.list_shared_workspaces("key_1", limit=2) == expected[:2]
        assert await records.list_shared_workspaces("key_2") == [SharedWorkspace(stored[2], Permission.READ)]
        assert await records.list_shared_workspaces("key_9") == []

    async def test_r10_concurrent_adds_at_a_quota_insert_exactly_so_many(self, stores: tuple[Records, Records]) -> None:
        async def add(store: Records, n: int) -> None:
            own = lineage()
            new = workspace(own, f"n{n}", f"key_{n % 2}")
            await store.add_workspace(new, revision(new), own, event(), quota=5)

        outcomes = await together(*[add(stores[n // 2 % 2], n) for n in range(40)])
        assert outcomes.count(None) == 10
        assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 30
        for owner in ("key_0", "key_1"):
            assert len(await stores[0].list_workspaces(owner=owner)) == 5
        assert len(await stores[0].list_events()) == len(await stores[0].list_lineages()) == 10

    async def test_of_concurrent_adds_of_one_name_one_wins(self, stores: tuple[Records, Records]) -> None:
        outcomes = await together(*[made(stores[n % 2]) for n in range(12)])
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Workspace)]
        assert sum(type(outcome) is Conflict for outcome in outcomes) == 11
        assert await stores[1].list_workspaces() == [winner]
        assert len(await stores[1].list_revisions()) == len(await stores[1].list_lineages()) == 1

    async def test_of_concurrent_renames_to_one_name_one_wins(self, stores: tuple[Records, Records]) -> None:
        stored = [await made(stores[0], f"n{n}") for n in range(8)]
        swaps = [stores[n % 2].swap_workspace(replace(one, name="won"), event()) for n, one in enumerate(stored)]
        outcomes = await together(*swaps)
        (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Workspace)]
        assert await stores[0].find_workspace("key_0", "won") == winner
        assert sum(type(outcome) is Conflict for outcome in outcomes) == 7

    @pytest.mark.parametrize("point", ["records.write.before_commit", "records.write.after_commit"])
    async def test_c01_each_mutation_is_whole_or_not_there(self, records: Records, point: str) -> None:
        if type(records).__name__ == "MemoryRecords":
            pytest.skip("dies with its process")

        class Killed(BaseException):
            pass

        def kill(_: str) -> None:
            raise Killed

        first = await made(records)
        base, added = await revised(records, first, 2)
        gone = await made(records, "gone")
        await records.swap_workspace(replace(gone, deleted_at=T0), event())
        kept, going, refreshed, new = pack(lineage()), pack(lineage()), pack(lineage(), 50), pack(lineage())
        own, spare, unused, added_later = lineage(), lineage(), lineage(), lineage()
        for each in (own, spare, unused):
            await records.add_lineage(each)
        kept, going, refreshed, new = (replace(one, lineage=own.id) for one in (kept, going, refreshed, new))
        for each in (kept, going, refreshed):
            await records.add_pack(each, chunks(each, each.id.encode()))
        taken = snapshot(added[0])
        await records.add_snapshot(taken, event())
        await records.put_share(Share(base.id, "key_1", Permission.READ, T0), event())
        fresh = workspace(added_later, "fresh")

        async def state() -> Any:
            return (
                await records.list_lineages(),
                await records.list_workspaces(deleted=None),
                await records.list_revisions(),
                await records.list_snapshots(),
                await records.list_shares(base.id),
                await records.list_packs(),
                await records.list_chunks(own.id),
                await records.list_events(),
            )

        mutations = (
            lambda: records.add_workspace(fresh, revision(fresh), added_later, event()),
            lambda: records.swap_workspace(replace(base, description="new"), event()),
            lambda: records.delete_workspace_records(gone.id),
            lambda: records.add_lineage(lineage()),
            lambda: records.swap_lineage_key(spare.id, KEY, None, "local", event()),
            lambda: records.delete_lineage(unused.id),
            lambda: records.set_revision_state(added[0].id, RevisionState.CORRUPT, event()),
            lambda: records.delete_revisions([first.head, added[0].id, base.head], event()),
            lambda: records.add_snapshot(snapshot(added[0], "snap_new"), event()),
            lambda: records.delete_snapshot("key_0", taken.id, event()),
            lambda: records.put_share(Share(base.id, "key_1", Permission.ADMIN, T0), event()),
            lambda: records.delete_share(base.id, "key_1", event()),
            lambda: records.add_pack(new, chunks(new, b"new")),
            lambda: records.move_chunks(new, chunks(new, kept.id.encode()), [kept.id]),
            lambda: records.refresh_packs([refreshed.id], T0),
            lambda: records.delete_chunks(own.id, [chunk_id(going.id.encode())], T0 + timedelta(days=1)),
            lambda: records.delete_packs([going.id]),
        )
        for number, mutate in enumerate(mutations):
            before = await state()
            with crash.armed(point, kill), pytest.raises(Killed):
                await mutate()
            changed = await state() != before
            assert changed is point.endswith("after_commit"), f"mutation {number}"
