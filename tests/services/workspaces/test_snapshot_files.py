"""Snapshot files: a copy of each snapshot below its user, whole or not at all, and gone with it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from atoll.domain.errors import Corrupt, InvalidInput, Unavailable
from atoll.services.workspaces.archives.snapshot_files import SnapshotFiles
from atoll.services.workspaces.archives.tree_archives import TreeArchives
from atoll.services.workspaces.storage import free_space
from atoll.services.workspaces.storage.free_space import StorageFull
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.testing.memory_blobs import MemoryBlobs
from tests.services.conftest import ALICE

from .storage import Storage, event, noise
from .workshop import Workshop


def over(storage: Storage, folder: Path) -> SnapshotFiles:
    return SnapshotFiles(folder, storage.records, TreeArchives(storage.chunks, storage.manifests))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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
    assert first.lineage != own.lineage
    assert names(folder) == [f"{ALICE.id}/{first.id}.tar.zst"]
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
    await shop.workspaces.snapshots.create(ALICE, "w")
    assert shop.parts.folders is not None
    with pytest.raises(StorageFull):
        await shop.parts.folders.follow(workspace.id)
    assert [names(folder) for folder in copies] == [[], []]
    monkeypatch.setattr(free_space, "_free_bytes", lambda _folder: 10)
    monkeypatch.setattr(free_space, "KNOWN_S", 0.0)
    snapshot = await shop.workspaces.snapshots.create(ALICE, "w")
    await shop.parts.folders.follow(workspace.id)
    assert [len(names(folder)) for folder in copies] == [1, 1]
    assert names(copies[0]) == [f"{ALICE.id}/{snapshot.id}.tar.zst"]
