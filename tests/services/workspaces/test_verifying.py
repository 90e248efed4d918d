"""Verifying: each damage is found, named by revision and path, marked with an event, and unmarked once it is mended."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import NotFound, Unavailable
from atoll.domain.event import Event
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import RevisionState, Workspace
from atoll.services.workspaces.storage.packs import pack_key
from atoll.services.workspaces.storage.verifying import Finding, Report
from atoll.testing.memory_blobs import MemoryBlobs
from tests.services.conftest import ALICE

from .storage import Storage, event, noise
from .workshop import Workshop

FILES = {b"a": noise(1, 3_000), b"b\xff": noise(2, 3_000), b"empty": b""}


async def states(storage: Storage, workspace: Workspace) -> list[RevisionState]:
    return [revision.state for revision in await storage.records.list_revisions(workspace=workspace.id)]


async def actions(storage: Storage, workspace: Workspace) -> list[str]:
    events = await storage.records.list_events(target=workspace.id)
    return [one.action for one in events if one.action.startswith("revision.")]


async def flip(storage: Storage, lineage: str, chunk: bytes) -> None:
    assert isinstance(storage.blobs, MemoryBlobs)
    place = (await storage.records.find_chunks(lineage, [chunk]))[chunk]
    storage.blobs.flip(pack_key(lineage, place.pack), place.offset + 20)


async def verify(storage: Storage, workspace: Workspace) -> Report:
    await storage.restart()
    return await storage.verifier.verify(workspace)


async def test_a_whole_workspace_is_read_once_and_nothing_is_found(storage: Storage) -> None:
    workspace = await storage.workspace(FILES)
    await storage.snapshot(workspace)
    workspace = await storage.revise(workspace, FILES | {b"c": b"c"})
    report = await verify(storage, workspace)
    assert (report.revisions, report.snapshots, report.corrupt, report.truncated) == (2, 1, [], False)
    assert report.chunks == 3 + 2 * 2  # contents, and a page and a root of each tree
    assert report.bytes > 6_001
    assert await actions(storage, workspace) == []


async def test_f14_a_flipped_byte_is_told_marked_and_once_mended_unmarked(storage: Storage) -> None:
    workspace = await storage.workspace(FILES)
    snapshot = await storage.snapshot(workspace)
    first = workspace.head
    workspace = await storage.revise(workspace, {b"a": FILES[b"a"]})
    hit = chunk_id(FILES[b"b\xff"])
    await flip(storage, workspace.lineage, hit)
    message = f"chunk {hit.hex()} of {workspace.lineage} is not what was stored"
    for _ in range(2):
        report = await verify(storage, workspace)
        assert report.corrupt == [
            Finding(message, revision=first, path="b\udcff"),
            Finding(message, snapshot=snapshot.id, path="b\udcff"),
        ]
        assert await states(storage, workspace) == [RevisionState.READY, RevisionState.CORRUPT]
        assert await actions(storage, workspace) == ["revision.corrupt"]
    (told,) = [one for one in await storage.records.list_events() if one.action == "revision.corrupt"]
    assert (told.tenant, told.outcome, told.detail["revision"]) == (workspace.owner, "failed", first)
    await flip(storage, workspace.lineage, hit)
    assert (await verify(storage, workspace)).corrupt == []
    assert await states(storage, workspace) == [RevisionState.READY, RevisionState.READY]
    assert await actions(storage, workspace) == ["revision.corrupt", "revision.repaired"]


@pytest.mark.parametrize("part", ["root", "page"])
async def test_f14_a_damaged_manifest_is_told(storage: Storage, part: str) -> None:
    workspace = await storage.workspace(FILES)
    revision = await storage.records.get_revision(workspace.head)
    assert revision is not None
    root = await storage.manifests.root(revision.lineage, revision.tree)
    await flip(storage, workspace.lineage, bytes.fromhex(revision.tree) if part == "root" else root.pages[0].id)
    report = await verify(storage, workspace)
    assert [(one.revision, one.path) for one in report.corrupt] == [(revision.id, None)]
    assert await states(storage, workspace) == [RevisionState.CORRUPT]


async def test_f14_lost_and_swapped_packs_are_told(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    alice, bob = await storage.workspace({b"a": b"alice's"}), await storage.workspace({b"a": b"bob's"}, "v")
    first, second = storage.packs
    blobs.objects[first], blobs.objects[second] = blobs.objects[second], blobs.objects[first]
    for workspace in (alice, bob):
        assert (await verify(storage, workspace)).corrupt
        assert await states(storage, workspace) == [RevisionState.CORRUPT]
    blobs.objects[first], blobs.objects[second] = blobs.objects[second], blobs.objects[first]
    del blobs.objects[next(key for key in storage.packs if bob.lineage in key)]
    assert (await verify(storage, alice)).corrupt == []
    (lost,) = (await verify(storage, bob)).corrupt
    assert "missing" in lost.message


async def test_a_shredded_key_is_told(storage: Storage) -> None:
    workspace = await storage.workspace(FILES)
    await storage.keys.shred(workspace.lineage, event("lineage.shredded", workspace.lineage))
    (lost,) = (await verify(storage, workspace)).corrupt
    assert "destroyed" in lost.message


async def test_what_is_deleted_meanwhile_is_not_damaged(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.create()
    await shop.push("w", "HEAD", {b"a": b"1"})
    snapshot = await shop.workspaces.snapshots.create(ALICE, "w", own_key=True)
    shredded, may_go_on = asyncio.Event(), asyncio.Event()

    async def shred_and_wait(lineage: str, why: Event) -> None:
        await shred(lineage, why)
        shredded.set()
        await may_go_on.wait()

    shred = shop.parts.keys.shred
    monkeypatch.setattr(shop.parts.keys, "shred", shred_and_wait)
    deleting = asyncio.create_task(shop.workspaces.snapshots.delete(ALICE, "w", snapshot.id))
    await shredded.wait()  # its key is gone, its record is still there
    verifying = asyncio.create_task(shop.workspaces.verify(ALICE, "w"))
    done, _ = await asyncio.wait([verifying], timeout=0.2)
    assert not done
    may_go_on.set()
    await deleting
    report = await verifying
    assert (report.corrupt, report.snapshots) == ([], 0)
    (workspace,) = await shop.records.list_workspaces()
    await shop.workspaces.delete(ALICE, "w")
    with pytest.raises(NotFound):
        await shop.parts.verifier.verify(workspace)
    actions = {one.action for one in await shop.records.list_events(target=workspace.id)}
    assert "revision.corrupt" not in actions


async def test_a_store_that_is_down_says_nothing_of_what_is_in_it(storage: Storage) -> None:
    workspace = await storage.workspace(FILES)
    assert isinstance(storage.blobs, MemoryBlobs)
    await storage.restart()
    storage.blobs.fail_next(100)
    with pytest.raises(Unavailable):
        await storage.verifier.verify(workspace)
    storage.blobs.fail_next(0)
    assert await states(storage, workspace) == [RevisionState.READY]
