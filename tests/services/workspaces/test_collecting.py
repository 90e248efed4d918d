"""Collecting: what is referred to stays, what is not goes after the grace, and no crash or race loses a byte."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from atoll.domain import crash
from atoll.domain.errors import NotFound, Unavailable
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import Workspace
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.storage.collecting import Collector, Marks
from atoll.services.workspaces.storage.packs import pack_key
from atoll.testing.memory_blobs import MemoryBlobs

from .storage import DAY, KIB, Storage, event, noise

Files = dict[bytes, bytes]
POINTS = sorted(name for name in crash.POINTS if name.startswith("workspaces.collect."))


def files(*numbers: int, size: int = 5 * KIB) -> Files:
    return {b"f%03d" % number: noise(number, size) for number in numbers}


async def forget(storage: Storage, *revision_ids: str) -> None:
    assert await storage.records.delete_revisions(revision_ids, event("revision.deleted", "w")) == len(revision_ids)


async def consistent(storage: Storage) -> None:
    """Each record's object is there and whole, each chunk in a pack that is recorded."""
    packs = await storage.records.list_packs()
    assert {pack_key(pack.lineage, pack.id) for pack in packs} <= set(storage.packs)
    for lineage in await storage.records.list_lineages():
        chunks = await storage.records.list_chunks(lineage.id)
        assert {chunk.pack for chunk in chunks} <= {pack.id for pack in packs}
        if lineage.key is not None:
            async for _, found in storage.chunks.check(lineage.id, [chunk.id for chunk in chunks]):
                assert isinstance(found, int)


async def wasted(storage: Storage) -> tuple[Workspace, Files]:
    """A workspace that forgot most of what it held, a while ago."""
    workspace = await storage.workspace(files(*range(60)))
    first = workspace.head
    kept = files(3, 17, 40) | {b"new": b"new"}
    workspace = await storage.revise(workspace, kept)
    await forget(storage, first)
    storage.later(DAY * 2)
    return workspace, kept


async def test_what_is_referred_to_stays_and_the_rest_goes(storage: Storage) -> None:
    workspace, kept = await wasted(storage)
    before = sum(pack.bytes for pack in await storage.records.list_packs())
    done = await storage.collector.collect()
    assert done.chunks == 57 + 2  # with the page and the root of the first tree
    assert done.packs + done.rewritten >= 4
    left = sum(pack.bytes for pack in await storage.records.list_packs())
    assert left < 3 * 6 * KIB + 4 * KIB
    assert done.bytes == before - left
    assert len(storage.packs) == len(await storage.records.list_packs())
    await storage.restart()
    assert await storage.files(workspace) == kept
    await consistent(storage)
    again = await storage.collector.collect()
    assert (again.chunks, again.packs, again.rewritten, again.orphans) == (0, 0, 0, 0)


async def test_nothing_younger_than_the_grace_goes(storage: Storage) -> None:
    workspace = await storage.workspace(files(1, 2))
    first = workspace.head
    workspace = await storage.revise(workspace, files(3))
    await forget(storage, first)
    await storage.put(workspace.lineage, b"pushed, and not committed yet")
    storage.later(DAY * 0.9)
    done = await storage.collector.collect()
    assert (done.chunks, done.packs, done.orphans) == (0, 0, 0)
    storage.later(DAY * 0.2)
    assert (await storage.collector.collect()).chunks == 2 + 2 + 1


async def test_what_did_not_change_since_is_not_read_again(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    workspace, _ = await wasted(storage)
    for _ in range(2):
        await storage.collector.collect()
        storage.later(DAY * 2)
    await storage.collector.collect()
    storage.chunks = None  # type: ignore[assignment]
    blobs.calls.clear()
    await storage.collector.collect()
    assert set(blobs.calls) == {"list"}
    storage.build()
    await storage.revise(workspace, {})
    await storage.records.delete_revisions([workspace.head], event("revision.deleted", "w"))
    storage.later(DAY * 2)
    assert (await storage.collector.collect()).chunks > 0


async def test_snapshots_keep_what_they_name_alone(storage: Storage) -> None:
    workspace = await storage.workspace(files(1, 2))
    snapshot = await storage.snapshot(workspace)
    workspace = await storage.revise(workspace, files(3))
    storage.later(DAY * 2)
    await storage.collector.collect()
    assert len(await storage.manifests.load(snapshot.lineage, snapshot.tree)) == 3
    async for _, found in storage.chunks.check(snapshot.lineage, map(chunk_id, files(1, 2).values())):
        assert isinstance(found, int)
    await storage.records.delete_snapshot(workspace.owner, snapshot.id, event("snapshot.deleted", snapshot.id))
    await forget(storage, snapshot.revision)
    assert (await storage.collector.collect()).chunks == 4


async def test_a_chunk_that_a_push_found_stays_though_nothing_refers_to_it(storage: Storage) -> None:
    """The push begins, the collector runs, the push commits: what it was told is there is there."""
    workspace = await storage.workspace(files(1, 2))
    first = workspace.head
    workspace = await storage.revise(workspace, {})
    await forget(storage, first)
    storage.later(DAY * 2)
    ids = [chunk_id(data) for data in files(1, 2).values()]
    assert await storage.chunks.missing(workspace.lineage, ids) == []
    assert (await storage.collector.collect()).chunks == 0
    workspace = await storage.revise(workspace, files(1, 2))
    storage.later(DAY * 2)
    await storage.collector.collect()
    assert await storage.files(workspace) == files(1, 2)


async def test_a_chunk_that_goes_while_a_push_looks_is_missing(storage: Storage) -> None:
    """The collector comes between the push's look and its refreshing of what it found."""
    workspace = await storage.workspace(files(1, 2))
    first = workspace.head
    workspace = await storage.revise(workspace, {})
    await forget(storage, first)
    storage.later(DAY * 2)
    refresh = storage.records.refresh_packs

    async def late(*args: object) -> None:
        storage.records.refresh_packs = refresh
        await storage.collector.collect()
        await refresh(*args)

    storage.records.refresh_packs = late
    ids = [chunk_id(data) for data in files(1, 2).values()]
    assert await storage.chunks.missing(workspace.lineage, ids) == ids


async def test_found_packs_are_refreshed_once_in_half_a_grace(storage: Storage) -> None:
    workspace = await storage.workspace(files(1))
    (chunk,) = [chunk_id(data) for data in files(1).values()]
    calls = 0
    refresh = storage.records.refresh_packs

    async def counting(*args: object) -> None:
        nonlocal calls
        calls += 1
        await refresh(*args)

    storage.records.refresh_packs = counting
    for _ in range(5):
        assert await storage.chunks.missing(workspace.lineage, [chunk]) == []
    assert calls == 1
    storage.later(DAY * 0.6)
    assert await storage.chunks.missing(workspace.lineage, [chunk]) == []
    assert calls == 2


async def test_a_tree_that_was_referred_to_a_moment_ago_stays(storage: Storage) -> None:
    """Somebody may be restoring the revision that retention has just forgotten."""
    storage.collector = Collector(storage.chunks, storage.manifests, WorkspaceLimits(), reuse_s=3_600)
    workspace = await storage.workspace(files(1))
    first = await storage.records.get_revision(workspace.head)
    assert first is not None
    workspace = await storage.revise(workspace, {})
    storage.later(DAY * 2)
    await storage.collector.collect()
    await forget(storage, first.id)
    for minutes in (30, 29):
        storage.later(timedelta(minutes=minutes))
        assert (await storage.collector.collect()).chunks == 0
    assert len(await storage.manifests.load(first.lineage, first.tree)) == 2
    storage.later(timedelta(minutes=61))
    assert (await storage.collector.collect()).chunks == 3


async def test_a_new_process_looks_for_a_while_before_it_sweeps(storage: Storage) -> None:
    await wasted(storage)
    storage.collector = Collector(storage.chunks, storage.manifests, WorkspaceLimits(), reuse_s=3_600)
    assert (await storage.collector.collect()).chunks == 0
    storage.later(timedelta(hours=1))
    assert (await storage.collector.collect()).chunks > 0


async def test_many_small_packs_become_one(storage: Storage) -> None:
    workspace = await storage.workspace({})
    contents: Files = {}
    for number in range(10):
        contents[b"f%d" % number] = b"contents of %d" % number
        workspace = await storage.revise(workspace, contents)
    assert len(storage.packs) == 11
    storage.later(DAY * 2)
    done = await storage.collector.collect()
    assert (done.chunks, done.rewritten) == (0, 11)
    assert len(storage.packs) == 1
    await storage.restart()
    for number in range(1, 12):
        assert len(await storage.files(workspace, number)) == number - 1
    await consistent(storage)


async def test_a_reader_finds_what_was_moved_while_it_read(storage: Storage) -> None:
    workspace, kept = await wasted(storage)
    find = storage.records.find_chunks

    async def late(*args: object) -> object:
        found = await find(*args)
        storage.records.find_chunks = find
        assert (await storage.collector.collect()).rewritten > 0
        return found

    ids = [chunk_id(data) for data in kept.values()]
    await storage.manifests.load(workspace.lineage, (await storage.records.get_revision(workspace.head)).tree)
    storage.records.find_chunks = late
    assert [data async for _, data in storage.chunks.fetch(workspace.lineage, ids)] == list(kept.values())


async def test_objects_without_a_record_go_after_the_grace_but_not_those_of_unknown_lineages(storage: Storage) -> None:
    blobs = storage.blobs
    workspace = await storage.workspace(files(1))
    orphan, foreign = pack_key(workspace.lineage, "pack_cut_short"), pack_key("lin_of_other_records", "pack_x")
    for key in (orphan, foreign, "something/else"):
        await blobs.put(key, b"data")
    assert (await storage.collector.collect()).orphans == 0
    storage.later(DAY * 2)
    assert (await storage.collector.collect()).orphans == 1
    assert orphan not in storage.packs
    assert {foreign, "something/else"} <= set(storage.packs)
    assert await storage.files(workspace) == files(1)


async def test_a_lineage_that_cannot_be_read_is_left_alone(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    workspace, _ = await wasted(storage)
    other, kept = await storage.workspace(files(7), "other"), files(7)
    revision = await storage.records.get_revision(workspace.head)
    root = (await storage.records.find_chunks(workspace.lineage, [bytes.fromhex(revision.tree)]))[
        bytes.fromhex(revision.tree)
    ]
    blobs.flip(pack_key(workspace.lineage, root.pack), root.offset + 15)
    await storage.restart()
    before = storage.packs
    done = await storage.collector.collect()
    assert (done.kept, done.chunks) == (1, 0)
    assert storage.packs == before
    assert await storage.files(other) == kept


async def test_a_damaged_pack_is_not_written_anew(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    workspace, _ = await wasted(storage)
    hit = chunk_id(files(17)[b"f017"])
    place = (await storage.records.find_chunks(workspace.lineage, [hit]))[hit]
    key = pack_key(workspace.lineage, place.pack)
    blobs.flip(key, place.offset + 15)
    await storage.collector.collect()
    assert key in storage.packs
    blobs.flip(key, place.offset + 15)  # mended from a copy
    assert await storage.chunks.get(workspace.lineage, hit)
    assert (await storage.collector.collect()).rewritten == 1


async def deleted(storage: Storage) -> Workspace:
    """A workspace that was deleted long ago, beside one that was not."""
    workspace = await storage.workspace(files(*range(5)))
    gone = Workspace(
        **{name: getattr(workspace, name) for name in workspace.__slots__} | {"deleted_at": storage.now}  # type: ignore[arg-type]
    )
    await storage.records.swap_workspace(gone, event("workspace.deleted", workspace.id))
    storage.later(DAY * 3)
    return workspace


async def test_a_deleted_workspace_is_shredded_and_forgotten(storage: Storage) -> None:
    alive = await storage.workspace(files(9), "alive")
    workspace = await deleted(storage)
    done = await storage.collector.collect()
    assert (done.workspaces, done.lineages) == (1, 1)
    assert await storage.records.get_workspace(workspace.id) is None
    assert await storage.records.get_lineage(workspace.lineage) is None
    assert all(alive.lineage in key for key in storage.packs)
    assert [one.action for one in await storage.records.list_events(target=workspace.lineage)] == ["lineage.shredded"]
    with pytest.raises(NotFound):
        await storage.chunks.get(workspace.lineage, chunk_id(files(1)[b"f001"]))
    assert await storage.files(alive) == files(9)


async def test_a_new_lineage_that_nothing_refers_to_yet_stays(storage: Storage) -> None:
    lineage = await storage.lineage()
    storage.later(DAY * 0.9)
    assert (await storage.collector.collect()).lineages == 0
    assert await storage.records.get_lineage(lineage.id) is not None


def test_each_point_has_its_case() -> None:
    assert set(POINTS) == SWEEPING | ENDING


SWEEPING = {
    "workspaces.collect.forgotten",
    "workspaces.collect.unlisted",
    "workspaces.collect.rewritten",
    "workspaces.collect.moved",
}
ENDING = {"workspaces.collect.shredded", "workspaces.collect.emptied"}


class Died(Exception):
    pass


def die(name: str) -> None:
    raise Died(name)


@pytest.mark.parametrize("point", sorted(SWEEPING))
async def test_c01_a_crash_while_sweeping_loses_nothing_and_the_next_pass_ends_it(storage: Storage, point: str) -> None:
    workspace, kept = await wasted(storage)
    with crash.armed(point, die), pytest.raises(Died):
        await storage.collector.collect()
    await storage.restart()
    assert await storage.files(workspace) == kept
    await consistent(storage)
    storage.later(DAY * 2)
    await storage.collector.collect()
    assert len(storage.packs) == len(await storage.records.list_packs())
    assert sum(pack.bytes for pack in await storage.records.list_packs()) < 22 * KIB
    await storage.restart()
    assert await storage.files(workspace) == kept
    await consistent(storage)


@pytest.mark.parametrize("point", sorted(ENDING))
async def test_c01_a_crash_while_a_lineage_ends_is_ended_by_the_next_pass(storage: Storage, point: str) -> None:
    alive = await storage.workspace(files(9), "alive")
    workspace = await deleted(storage)
    with crash.armed(point, die), pytest.raises(Died):
        await storage.collector.collect()
    await storage.restart()
    with pytest.raises(NotFound):
        await storage.chunks.get(workspace.lineage, chunk_id(files(1)[b"f001"]))
    assert (await storage.collector.collect()).lineages == 1
    assert await storage.records.get_lineage(workspace.lineage) is None
    assert all(alive.lineage in key for key in storage.packs)
    assert await storage.files(alive) == files(9)


async def test_c11_a_store_that_fails_in_between_loses_nothing(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    workspace, kept = await wasted(storage)
    for after in range(12):
        blobs.fail_next(1, after=after)
        try:
            await storage.collector.collect()
        except Unavailable:
            pass
        blobs.fail_next(0)
        await storage.restart()
        assert await storage.files(workspace) == kept
        await consistent(storage)
        storage.later(DAY * 2)
    await storage.collector.collect()
    assert len(storage.packs) == len(await storage.records.list_packs())


async def test_random_lives_beside_the_collector_equal_the_model(storage: Storage) -> None:
    chance = random.Random(5)
    model: dict[int, Files] = {}
    contents = files(*range(12), size=2 * KIB)
    workspace = await storage.workspace(contents)
    model[1] = dict(contents)
    for number in range(2, 30):
        for path in chance.sample(sorted(contents), 4):
            del contents[path]
        contents |= files(*chance.sample(range(40), 6), size=2 * KIB)
        workspace, _ = await asyncio.gather(storage.revise(workspace, contents), storage.collector.collect())
        model[number] = dict(contents)
        storage.later(DAY * chance.choice([0.1, 0.7, 2]))
        if len(model) > 4:
            victim = chance.choice(sorted(model)[:-1])
            revision = await storage.records.find_revision(workspace.id, victim)
            assert revision is not None
            await forget(storage, revision.id)
            del model[victim]
        if number % 7 == 0:
            await storage.restart()
        for kept in sorted(model):
            assert await storage.files(workspace, kept) == model[kept]
    await consistent(storage)


def test_marks_hold_what_was_added() -> None:
    marks = Marks()
    ids = [chunk_id(b"%d" % number) for number in range(2_000)]
    marks.add(b"".join(ids[:1_000]))
    assert all(chunk in marks for chunk in sorted(ids[:1_000]))
    assert not any(chunk in marks for chunk in ids[1_000:])
    marks.add(ids[1_500])
    assert ids[1_500] in marks
