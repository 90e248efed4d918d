"""What every records store must do with lineages, packs and chunks; a part of `WorkspaceRecordsConformance`."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import (
    Pack,
    StoredChunk,
)
from atoll.records.base import Records
from atoll.testing.records_conformance import together
from atoll.testing.workspace_records_examples import (
    KEY,
    T0,
    OnStores,
    chunks,
    event,
    lineage,
    made,
    pack,
    revision,
    snapshot,
    workspace,
)


class ChunkRecordsConformance(OnStores):
    """See `WorkspaceRecordsConformance`."""

    async def test_lineages_are_returned_as_stored_oldest_first(self, records: Records) -> None:
        stored = [lineage(age_s) for age_s in (5, 1, 3)]
        for each in stored:
            await records.add_lineage(each)
        assert await records.get_lineage(stored[0].id) == stored[0]
        assert await records.get_lineage("lin_none") is None
        assert await records.list_lineages() == [stored[0], stored[2], stored[1]]
        with pytest.raises(Conflict):
            await records.add_lineage(replace(stored[0], key=b"other"))
        assert await records.get_lineage(stored[0].id) == stored[0]

    async def test_a_key_is_swapped_if_it_is_the_one_that_was_read_and_can_be_shredded(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        await records.swap_lineage_key(own.id, KEY, b"new", "other", event(own.id, "lineage.rewrapped"))
        assert await records.get_lineage(own.id) == replace(own, key=b"new", vault="other")
        with pytest.raises(StaleVersion):
            await records.swap_lineage_key(own.id, KEY, None, "other", event(own.id))
        await records.swap_lineage_key(own.id, b"new", None, "other", event(own.id, "lineage.shredded"))
        with pytest.raises(StaleVersion):
            await records.swap_lineage_key(own.id, b"new", KEY, "other", event(own.id))
        with pytest.raises(NotFound):
            await records.swap_lineage_key("lin_none", b"", b"", "local", event(own.id))
        assert [stored.action for stored in await records.list_events(target=own.id)] == [
            "lineage.rewrapped",
            "lineage.shredded",
        ]

    async def test_nothing_is_added_under_a_key_that_is_gone_or_shredded(self, records: Records) -> None:
        base = await made(records)
        gone = lineage()
        shredded = lineage()
        await records.add_lineage(shredded)
        await records.swap_lineage_key(shredded.id, KEY, None, "local", event())
        happened = len(await records.list_events())
        for dead in (gone, shredded):
            fork, into = workspace(dead, "fork"), pack(dead)
            new = revision(base, 2, lineage=dead.id)
            for call in (
                records.add_workspace(fork, revision(fork), None, event()),
                records.add_revision(new, base, event()),
                records.add_snapshot(replace(snapshot(revision(base)), lineage=dead.id), event()),
                records.add_pack(into, chunks(into, b"a")),
                records.move_chunks(into, chunks(into, b"a"), []),
            ):
                with pytest.raises(NotFound):
                    await call
            assert await records.list_packs(dead.id) == []
            assert await records.list_chunks(dead.id) == []
        assert await records.list_workspaces() == [base]
        assert len(await records.list_events()) == happened

    async def test_chunks_are_found_in_their_own_lineage_only(self, records: Records) -> None:
        mine, theirs = lineage(), lineage()
        for each in (mine, theirs):
            await records.add_lineage(each)
        packed = pack(mine)
        stored = chunks(packed, b"a", b"b", b"c")
        await records.add_pack(packed, stored)
        ids = [chunk.id for chunk in stored]
        assert await records.find_chunks(mine.id, [*ids, bytes(32)]) == {chunk.id: chunk for chunk in stored}
        assert await records.find_chunks(mine.id, []) == {}
        assert await records.find_chunks(theirs.id, ids) == {}
        assert await records.list_chunks(theirs.id) == []
        assert await records.list_packs(theirs.id) == []
        assert await records.delete_chunks(theirs.id, ids, T0 + timedelta(days=1)) == 0
        other = pack(theirs)
        await records.add_pack(other, chunks(other, b"a"))
        assert (await records.find_chunks(mine.id, ids))[ids[0]].pack == packed.id
        assert (await records.find_chunks(theirs.id, ids))[ids[0]].pack == other.id
        assert await records.delete_packs([other.id]) == 1
        assert len(await records.find_chunks(mine.id, ids)) == 3

    async def test_a_chunk_that_the_lineage_has_stays_where_it_is(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        first, second = pack(own), pack(own)
        await records.add_pack(first, chunks(first, b"a", b"b"))
        later = chunks(second, b"c", b"b", b"d")
        await records.add_pack(second, later)
        found = await records.find_chunks(own.id, [chunk_id(name) for name in (b"a", b"b", b"c", b"d")])
        assert [chunk.pack for chunk in found.values()].count(first.id) == 2
        assert found[chunk_id(b"c")] == later[0]
        with pytest.raises(Conflict):
            await records.add_pack(second, chunks(second, b"e"))
        assert await records.find_chunks(own.id, [chunk_id(b"e")]) == {}
        empty = pack(own)
        await records.add_pack(empty, [])
        assert len(await records.list_packs(own.id)) == 3

    async def test_many_chunks_are_stored_found_and_listed_in_pages(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        packed = pack(own)
        stored = chunks(packed, *(b"%d" % n for n in range(2500)))
        await records.add_pack(packed, stored)
        by_id = sorted(stored, key=lambda chunk: chunk.id)
        assert await records.find_chunks(own.id, [chunk.id for chunk in stored]) == {one.id: one for one in stored}
        assert await records.list_chunks(own.id) == by_id
        assert await records.list_chunks(own.id, limit=3) == by_id[:3]
        assert await records.list_chunks(own.id, after=by_id[2].id, limit=2) == by_id[3:5]
        assert await records.list_chunks(own.id, after=by_id[-1].id) == []

    async def test_packs_are_listed_by_id_in_pages(self, records: Records) -> None:
        mine, theirs = lineage(), lineage()
        for each in (mine, theirs):
            await records.add_lineage(each)
        stored = sorted([pack(mine), pack(mine, 5), pack(theirs), pack(theirs)], key=lambda one: one.id)
        for each in stored:
            await records.add_pack(each, [])
        assert await records.list_packs() == stored
        assert await records.list_packs(after=stored[0].id, limit=2) == stored[1:3]
        assert await records.list_packs(mine.id) == [one for one in stored if one.lineage == mine.id]

    async def test_chunks_move_into_a_new_pack_and_the_old_ones_go_with_the_rest(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        old, kept, new = pack(own), pack(own), pack(own)
        await records.add_pack(old, chunks(old, b"a", b"b", b"c"))
        await records.add_pack(kept, chunks(kept, b"d", b"e"))
        moved = chunks(new, b"a", b"d")
        for _ in range(2):  # the second time changes nothing
            await records.move_chunks(new, moved, [old.id, "pack_none"])
            assert {one.id for one in await records.list_packs(own.id)} == {kept.id, new.id}
            expected = [*moved, chunks(kept, b"d", b"e")[1]]
            assert await records.list_chunks(own.id) == sorted(expected, key=lambda chunk: chunk.id)

    async def test_chunks_of_packs_that_are_new_or_refreshed_are_not_deleted(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        old, fresh, edge = pack(own, 100), pack(own, 100), pack(own)
        await records.add_pack(old, chunks(old, *(b"%d" % n for n in range(1200))))
        await records.add_pack(fresh, chunks(fresh, b"f"))
        await records.add_pack(edge, chunks(edge, b"e"))
        await records.refresh_packs([fresh.id, "pack_none"], T0)
        await records.refresh_packs([edge.id], T0 - timedelta(days=1))
        assert {one.created_at for one in await records.list_packs() if one.id != old.id} == {T0}
        ids = [one.id for one in await records.list_chunks(own.id)]
        assert await records.delete_chunks(own.id, [*ids, bytes(32)], T0) == 1200
        assert {one.pack for one in await records.list_chunks(own.id)} == {fresh.id, edge.id}
        assert await records.delete_chunks(own.id, ids, T0 + timedelta(seconds=1)) == 2
        assert len(await records.list_packs(own.id)) == 3

    async def test_packs_are_forgotten_with_what_they_hold(self, records: Records) -> None:
        own = lineage()
        await records.add_lineage(own)
        stored = [pack(own) for _ in range(20)]
        for n, each in enumerate(stored):
            await records.add_pack(each, chunks(each, b"%d" % n))
        going = [each.id for each in stored[1:]]
        assert await records.delete_packs([*going, "pack_none"]) == 19
        assert await records.delete_packs(going) == 0
        assert await records.list_packs(own.id) == stored[:1]
        assert [one.pack for one in await records.list_chunks(own.id)] == [stored[0].id]

    async def test_a_lineage_goes_when_nothing_refers_to_it(self, records: Records) -> None:
        base = await made(records)
        other = lineage()
        await records.add_lineage(other)
        packed = pack(replace(other, id=base.lineage))
        await records.add_pack(packed, chunks(packed, b"a"))
        kept = pack(other)
        await records.add_pack(kept, chunks(kept, b"a"))
        with pytest.raises(Conflict):
            await records.delete_lineage(base.lineage)
        stored = await records.get_lineage(base.lineage)
        assert stored is not None
        assert stored.key == KEY
        assert len(await records.list_chunks(base.lineage)) == 1
        await records.swap_workspace(replace(base, deleted_at=T0), event())
        await records.delete_workspace_records(base.id)
        for _ in range(2):
            await records.delete_lineage(base.lineage)
            assert await records.get_lineage(base.lineage) is None
            assert await records.list_chunks(base.lineage) == []
        assert await records.list_packs() == [kept]
        assert len(await records.list_chunks(other.id)) == 1

    async def test_what_an_owner_has_stored_is_the_sum_of_its_packs(self, records: Records) -> None:
        mine, other, theirs = lineage(), lineage(), lineage(owner="key_1")
        for each in (mine, other, theirs):
            await records.add_lineage(each)
        assert await records.stored_bytes("key_0") == await records.stored_bytes("") == 0
        packed = [replace(pack(of), bytes=size) for of, size in ((mine, 3), (mine, 40), (other, 500), (theirs, 6000))]
        for n, each in enumerate(packed):
            await records.add_pack(each, chunks(each, b"%d" % n))
        assert (await records.stored_bytes("key_0"), await records.stored_bytes("key_1")) == (543, 6000)
        assert await records.list_stored() == [("key_0", 543), ("key_1", 6000)]
        assert await records.list_stored(after="key_0", limit=1) == [("key_1", 6000)]
        with pytest.raises(Conflict):
            await records.add_pack(packed[0], [])
        new = replace(pack(mine), bytes=20)
        for _ in range(2):
            await records.move_chunks(new, chunks(new, b"1"), [packed[1].id, "pack_none"])
            assert await records.stored_bytes("key_0") == 523
        for _ in range(2):
            await records.delete_packs([packed[0].id, packed[3].id])
            assert (await records.stored_bytes("key_0"), await records.stored_bytes("key_1")) == (520, 0)
            assert await records.list_stored() == [("key_0", 520)]
        await records.delete_chunks(mine.id, [chunk_id(b"1")], T0 + timedelta(days=1))
        assert await records.stored_bytes("key_0") == 520
        await records.delete_lineage(other.id)
        assert await records.stored_bytes("key_0") == 20

    async def test_a_pack_beyond_its_owners_quota_is_refused_and_changes_nothing(self, records: Records) -> None:
        mine, theirs = lineage(), lineage(owner="key_1")
        for each in (mine, theirs):
            await records.add_lineage(each)
        first, second, others = pack(mine), pack(mine), pack(theirs)
        for late in (first, second):
            with pytest.raises(QuotaExceeded):
                await records.add_pack(late, chunks(late, b"a"), quota=999)
        await records.add_pack(first, chunks(first, b"a"), quota=1000)
        with pytest.raises(QuotaExceeded):
            await records.add_pack(second, chunks(second, b"b"), quota=1999)
        assert await records.find_chunks(mine.id, [chunk_id(b"b")]) == {}
        assert await records.list_packs(mine.id) == [first]
        assert await records.stored_bytes("key_0") == 1000
        await records.add_pack(others, chunks(others, b"b"), quota=1000)
        await records.move_chunks(second, chunks(second, b"a"), [first.id])
        assert await records.stored_bytes("key_0") == 1000

    async def test_packs_at_once_never_pass_the_quota(self, stores: tuple[Records, Records]) -> None:
        own = [lineage(), lineage()]
        for each in own:
            await stores[0].add_lineage(each)
        packed = [pack(own[n % 2]) for n in range(12)]
        adds = [
            stores[n % 2].add_pack(each, chunks(each, b"a", b"%d" % n), quota=5500) for n, each in enumerate(packed)
        ]
        outcomes = await together(*adds)
        assert sum(outcome is None for outcome in outcomes) == 5
        assert all(outcome is None or isinstance(outcome, QuotaExceeded) for outcome in outcomes)
        assert len(await stores[1].list_packs()) == 5
        assert await stores[1].stored_bytes("key_0") == 5000
        kept = [each.id for each in packed]
        assert sum(await together(stores[0].delete_packs(kept), stores[1].delete_packs(kept[::-1]))) == 5
        assert await stores[0].stored_bytes("key_0") == 0

    async def test_packs_of_the_same_chunks_at_once_are_all_stored_and_each_chunk_once(
        self, stores: tuple[Records, Records]
    ) -> None:
        own = lineage()
        await stores[0].add_lineage(own)
        contents = [b"%d" % n for n in range(100)]
        packed = [pack(own) for _ in range(6)]
        adds: list[Any] = []
        for n, each in enumerate(packed):
            random.Random(n).shuffle(contents)
            adds.append(stores[n % 2].add_pack(each, chunks(each, *contents)))
        assert await together(*adds) == [None] * 6
        assert len(await stores[0].list_packs(own.id)) == 6
        assert len(await stores[0].list_chunks(own.id)) == 100

    async def test_packs_added_while_their_lineage_is_deleted_are_refused_or_gone(
        self, stores: tuple[Records, Records]
    ) -> None:
        for _ in range(5):
            own = lineage()
            await stores[0].add_lineage(own)
            packed = [pack(own) for _ in range(6)]
            adds = [stores[n % 2].add_pack(each, chunks(each, b"%d" % n)) for n, each in enumerate(packed)]
            outcomes = await together(*adds[:3], stores[0].delete_lineage(own.id), *adds[3:])
            assert all(outcome is None or isinstance(outcome, NotFound) for outcome in outcomes)
            assert outcomes[3] is None
            assert await stores[1].get_lineage(own.id) is None
            assert await stores[1].list_packs(own.id) == []
            assert await stores[1].list_chunks(own.id) == []

    async def test_a_refresh_that_has_returned_keeps_chunks_from_a_concurrent_deletion(
        self, stores: tuple[Records, Records]
    ) -> None:
        own = lineage()
        await stores[0].add_lineage(own)
        for n in range(10):
            old = pack(own, 100)
            (stored,) = chunks(old, b"%d" % n)
            await stores[0].add_pack(old, [stored])

            async def use(store: Records = stores[n % 2], old: Pack = old, stored: StoredChunk = stored) -> bool:
                await store.refresh_packs([old.id], T0)
                return stored.id in await store.find_chunks(own.id, [stored.id])

            used, gone = await together(use(), stores[(n + 1) % 2].delete_chunks(own.id, [stored.id], T0))
            there = await stores[0].find_chunks(own.id, [stored.id])
            assert bool(there) is used is (gone == 0)
