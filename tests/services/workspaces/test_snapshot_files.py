"""Snapshot files: a copy of each snapshot below its user, whole or not at all, and gone with it."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from structlog.testing import capture_logs

from atoll.domain.chunk_ids import hole_run
from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.domain.tree import FILE_BYTES_MAX, Entry, EntryKind
from atoll.services.workspaces.archives.snapshot_files import SnapshotFiles
from atoll.services.workspaces.archives.tree_archives import TreeArchives
from atoll.services.workspaces.storage import free_space
from atoll.services.workspaces.storage.free_space import StorageFull
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.testing.memory_blobs import MemoryBlobs
from tests.services.conftest import ALICE

from .storage import KIB, MIB, Storage, event, noise
from .workshop import Workshop, each


def over(storage: Storage, folder: Path) -> SnapshotFiles:
    return SnapshotFiles(folder, storage.records, TreeArchives(storage.chunks, storage.manifests))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def endless(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Archives have no end from now on; the trees of those that are being made."""
    running: list[str] = []

    async def export(_: TreeArchives, _lineage: str, tree: str, _root: bytes) -> AsyncGenerator[bytes]:
        running.append(tree)
        try:
            while True:
                await asyncio.sleep(0.001)
                yield b"more"
        finally:
            running.remove(tree)

    monkeypatch.setattr(TreeArchives, "export", export)
    return running


def collections(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that the collector runs from now on."""
    rounds: list[None] = []
    collect = shop.parts.collector.collect

    async def counted() -> object:
        rounds.append(None)
        return await collect()

    monkeypatch.setattr(shop.parts.collector, "collect", counted)
    return rounds


async def test_a_copy_lies_below_its_user_with_the_users_id_as_its_root(storage: Storage, tmp_path: Path) -> None:
    workspace = await storage.workspace({b"a": b"contents"})
    snapshot = await storage.snapshot(workspace)
    path = await over(storage, tmp_path / "srv").keep(snapshot)
    assert path == tmp_path / "srv" / workspace.owner / f"{snapshot.id}.tar.zst"
    assert path.stat().st_mode & 0o777 == 0o600
    data = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [workspace.owner, f"{workspace.owner}/a"]


async def test_reconciling_writes_what_is_missing_and_removes_what_is_gone(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    files = over(storage, folder)
    workspace = await storage.workspace({b"a": b"contents"})
    first = await storage.snapshot(workspace)
    second = await storage.snapshot(workspace, "snap_2026_01_01_000000_2")
    await files.reconcile()
    both = [f"key_a/{one.id}.tar.zst" for one in (first, second)]
    assert names(folder) == both
    (folder / "key_a" / "snap_2020_01_01_000000.tar.zst.partial").write_bytes(b"half")
    (folder / "key_a" / "notes.txt").write_bytes(b"the operator's own")
    await storage.records.delete_snapshot("key_a", first.id, event("snapshot.deleted", first.id))
    await files.reconcile()
    assert names(folder) == ["key_a/notes.txt", both[1]]
    for _ in range(2):
        await files.remove(second)
    assert names(folder) == ["key_a/notes.txt"]


async def test_what_fails_leaves_no_half_copy(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    files = over(storage, folder)
    snapshot = await storage.snapshot(await storage.workspace({b"a": noise(1, 4_000)}))
    assert isinstance(storage.blobs, MemoryBlobs)
    (key,) = storage.packs
    storage.blobs.flip(key, 100)
    with pytest.raises(Corrupt):
        await files.keep(snapshot)
    await files.reconcile()
    assert names(folder) == []
    with pytest.raises(Unavailable):
        await over(storage, Path("/proc/nowhere")).keep(snapshot)
    for owner in ("../etc", ".", "a/b", ""):
        with pytest.raises(InvalidInput):
            await files.keep(replace(snapshot, owner=owner))


async def test_a_service_keeps_copies_of_what_it_snapshots(shop: Workshop, tmp_path: Path) -> None:
    folder = shop.snapshot_files = tmp_path / "srv"
    await shop.restart()
    await shop.create()
    first = await shop.workspaces.snapshots.create(ALICE, "w")
    own = await shop.workspaces.snapshots.create(ALICE, "w", own_key=True)
    last = await shop.workspaces.snapshots.create(ALICE, "w", name="last")
    assert first.lineage != own.lineage
    await until(lambda: names(folder) == [f"{ALICE.id}/{one.id}.tar.zst" for one in (first, last)])
    await shop.workspaces.snapshots.delete(ALICE, "w", last.id)
    await shop.workspaces.snapshots.delete(ALICE, "w", first.id)
    assert names(folder) == []


async def test_a_short_disk_holds_up_the_copies_on_it_alone(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.snapshot_files, shop.plain_copies = copies = tmp_path / "files", tmp_path / "folder"
    shop.storage_limits = StorageLimits(free_bytes_min=10)
    monkeypatch.setattr(free_space, "_free_bytes", lambda folder: 9 if folder in copies else 2**40)
    await shop.restart()
    workspace = (await shop.create()).workspace
    await shop.push("w", "HEAD", {b"a": b"1"})
    with capture_logs() as logs:
        await shop.workspaces.snapshots.create(ALICE, "w")
        await until(lambda: any(one["event"] == "workspaces.snapshot_file_missing" for one in logs))
    assert shop.parts.folders is not None
    with pytest.raises(StorageFull):
        await shop.parts.folders.follow(workspace.id)
    assert [names(folder) for folder in copies] == [[], []]
    monkeypatch.setattr(free_space, "_free_bytes", lambda _folder: 10)
    monkeypatch.setattr(free_space, "KNOWN_S", 0.0)
    snapshot = await shop.workspaces.snapshots.create(ALICE, "w")
    await shop.parts.folders.follow(workspace.id)
    await until(lambda: names(copies[0]) == [f"{ALICE.id}/{snapshot.id}.tar.zst"])
    assert len(names(copies[1])) == 1


async def test_a_copy_without_an_end_holds_up_neither_its_maker_nor_the_collector_and_ends_with_its_snapshot(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop.snapshot_files = tmp_path / "srv"
    shop.limits = replace(shop.limits, collect_every_s=0.02)
    await shop.restart()
    await shop.create()
    running = endless(monkeypatch)
    snapshot = await shop.workspaces.snapshots.create(ALICE, "w")
    await until(lambda: len(running) == 1)
    rounds = collections(shop, monkeypatch)
    await until(lambda: len(rounds) >= 2)
    assert names(folder) == [f"{ALICE.id}/{snapshot.id}.tar.zst.partial"]
    await shop.workspaces.snapshots.delete(ALICE, "w", snapshot.id)
    assert (running, names(folder)) == ([], [])
    await shop.workspaces.snapshots.create(ALICE, "w")
    await until(lambda: len(running) == 1)
    await shop.workspaces.delete(ALICE, "w")
    assert (running, names(folder)) == ([], [])


async def test_a_commit_of_terabytes_that_only_its_chunks_call_holes_is_copied_and_restored_at_once(
    shop: Workshop, tmp_path: Path
) -> None:
    folder = shop.snapshot_files = tmp_path / "srv"
    await shop.restart()
    view = await shop.workspaces.create(ALICE, "w", quota_bytes=MIB)
    size = FILE_BYTES_MAX
    bombs = [Entry(b"s%d" % number, EntryKind.FILE, size=size, chunks=hole_run(2**24)) for number in range(3)]
    async with asyncio.timeout(30):
        await shop.workspaces.sync.commit(ALICE, "w", view.head.revision.id, each(bombs))
        snapshot = await shop.workspaces.snapshots.create(ALICE, "w")
        path = folder / ALICE.id / f"{snapshot.id}.tar.zst"
        await until(path.exists)
        assert path.stat().st_size < 64 * KIB
        archive = b"".join([piece async for piece in await shop.workspaces.archives.export(ALICE, "w")])
        assert len(archive) < 64 * KIB
        await shop.mount("w")
        status = (await shop.folder("w") / "s0").stat()
        assert (status.st_size, status.st_blocks) == (size, 0)


async def test_a_copy_has_a_deadline_and_the_next_one_comes_after_it(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop.snapshot_files = tmp_path / "srv"
    shop.limits = replace(shop.limits, tree_s=0.3)
    await shop.restart()
    await shop.create()
    with monkeypatch.context() as patched:
        running = endless(patched)
        await shop.workspaces.snapshots.create(ALICE, "w", name="endless")
        await until(lambda: len(running) == 1)
    whole = await shop.workspaces.snapshots.create(ALICE, "w")
    await until(lambda: names(folder) == [f"{ALICE.id}/{whole.id}.tar.zst"])
    assert running == []


async def test_a_server_that_ends_gives_a_copy_up_and_the_next_one_makes_it(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop.snapshot_files = tmp_path / "srv"
    await shop.restart()
    await shop.create()
    with monkeypatch.context() as patched:
        running = endless(patched)
        snapshot = await shop.workspaces.snapshots.create(ALICE, "w")
        await until(lambda: len(running) == 1)
        async with asyncio.timeout(5):
            await shop.close()
        assert (running, names(folder)) == ([], [])
    await shop.restart()
    await until(lambda: names(folder) == [f"{ALICE.id}/{snapshot.id}.tar.zst"])
