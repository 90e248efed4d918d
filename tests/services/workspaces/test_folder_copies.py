"""Folder copies: what an operator finds below the folder is the heads' files, and nothing that could harm the host."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.errors import Corrupt
from atoll.domain.tree import CHUNK_BYTES, Entry, EntryKind
from atoll.domain.workspace import Workspace
from atoll.services.workspaces.archives.folder_copies import FolderCopies, name_of
from atoll.services.workspaces.archives.plain_tree import PlainTree, stays_inside
from atoll.services.workspaces.storage.free_space import FreeSpace, StorageFull
from atoll.services.workspaces.views import Changes
from atoll.testing.memory_blobs import MemoryBlobs
from tests.services.conftest import ALICE, until

from .storage import ROOT, Storage, event, file, noise
from .workshop import Workshop, disk

GONE = "ws_" + "9" * 32


def over(storage: Storage, folder: Path) -> FolderCopies:
    return FolderCopies(folder, storage.records, storage.manifests, storage.chunks)


async def revised(storage: Storage, workspace: Workspace, entries: list[Entry]) -> Workspace:
    """The workspace with such entries as its head."""
    last = await storage.records.get_revision(workspace.head)
    assert last is not None
    empty = await storage.revision(workspace.id, workspace.lineage, {}, last.number + 1, last.id)
    async with storage.chunks.writer(workspace.lineage) as writer:
        tree, _ = await storage.manifests.store(writer, entries)

    head = replace(empty, tree=tree)
    return await storage.records.add_revision(head, workspace, event("workspace.revised", workspace.id))


def inodes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


async def test_a_copy_follows_the_head_and_takes_over_what_is_the_same(storage: Storage, tmp_path: Path) -> None:
    copies = over(storage, tmp_path / "srv")
    workspace = await storage.workspace({b"a": noise(1, 3 * CHUNK_BYTES + 5), b"b": b"before", b"gone": b""}, "site")
    await copies.follow(workspace.id)
    shown = tmp_path / "srv" / workspace.owner / "site"
    assert disk(shown) == {b"a": noise(1, 3 * CHUNK_BYTES + 5), b"b": b"before", b"gone": b""}
    assert (tmp_path / "srv").stat().st_mode & 0o777 == shown.parent.stat().st_mode & 0o777 == 0o700
    before = inodes(shown)
    workspace = await storage.revise(workspace, {b"a": noise(1, 3 * CHUNK_BYTES + 5), b"b": b"after", b"c": b"new"})
    for _ in range(2):
        await copies.follow(workspace.id)
    assert disk(shown) == {b"a": noise(1, 3 * CHUNK_BYTES + 5), b"b": b"after", b"c": b"new"}
    after = inodes(shown)
    assert after["a"] == before["a"] and after["b"] != before["b"]
    assert len(list((shown.parent / ".atoll" / workspace.id).iterdir())) == 1


async def test_what_somebody_wrote_into_a_copy_is_not_taken_over(storage: Storage, tmp_path: Path) -> None:
    copies = over(storage, tmp_path)
    workspace = await storage.workspace({b"a": b"first"})
    await copies.follow(workspace.id)
    shown = tmp_path / workspace.owner / "w"
    (shown / "a").write_bytes(b"the operator's")
    workspace = await storage.revise(workspace, {b"a": b"first", b"b": b""})
    await copies.follow(workspace.id)
    assert disk(shown) == {b"a": b"first", b"b": b""}


async def test_nothing_in_it_can_harm_the_host(storage: Storage, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    workspace = await storage.workspace({})
    links = {b"abs": bytes(victim), b"up": b"../x", b"deep/up": b"../../x", b"deep/in": b"../f", b"in": b"deep/./dir"}
    links |= {b"deep/dir": b".", b"sly": b"deep/dir/../../x", b"dangling": b"nowhere"}
    async with storage.chunks.writer(workspace.lineage) as writer:
        suid = (await file(writer, b"f", b"#!/bin/sh\n"))._replace(mode=0o6755)
    more = [Entry(b"deep", EntryKind.DIRECTORY, 0o7777), Entry(b"pipe", EntryKind.FIFO), suid]
    more += [Entry(path, EntryKind.SYMLINK, 0, target=target) for path, target in links.items()]
    more += [Entry(b"g", EntryKind.HARDLINK, 0, target=b"f")]
    workspace = await revised(storage, workspace, [ROOT, *sorted(more)])
    await over(storage, tmp_path / "srv").follow(workspace.id)
    shown = tmp_path / "srv" / workspace.owner / "w"
    there = sorted(str(path.relative_to(shown)) for path in shown.rglob("*"))
    assert there == ["dangling", "deep", "deep/dir", "deep/in", "f", "g", "in"]
    assert stat.S_IMODE((shown / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((shown / "deep").stat().st_mode) == 0o777
    assert (shown / "f").stat().st_ino == (shown / "g").stat().st_ino
    assert (shown / "f").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("outside", [b"/tmp", b"victim"])
async def test_no_link_is_followed_on_the_way(storage: Storage, tmp_path: Path, outside: bytes) -> None:
    """Not even where a manifest has files below one."""
    workspace = await storage.workspace({})
    async with storage.chunks.writer(workspace.lineage) as writer:
        below = await file(writer, b"a/f", b"evil")
    entries = [ROOT, Entry(b"a", EntryKind.SYMLINK, 0, target=outside), below]
    entries.append(Entry(b"victim", EntryKind.DIRECTORY))
    workspace = await revised(storage, workspace, entries)
    with pytest.raises(OSError):  # which one is the kernel's to say
        await over(storage, tmp_path / "srv").follow(workspace.id)
    assert disk(tmp_path / "srv") == {}
    assert list((tmp_path / "srv" / workspace.owner / ".atoll" / workspace.id).iterdir()) == []


def test_links_that_stay_inside() -> None:
    def stays(path: bytes, target: bytes) -> bool:
        return stays_inside(Entry(path, EntryKind.SYMLINK, 0, target=target))

    assert stays(b"a/b/l", b"../../x") and stays(b"l", b"x//./y") and stays(b"a/l", b"..")
    assert not stays(b"a/b/l", b"../../../x") and not stays(b"l", b"/x") and not stays(b"a/l", b"x/../y")


async def test_names_that_cannot_be_a_files_or_would_be_hidden_are_ids(storage: Storage, tmp_path: Path) -> None:
    copies = over(storage, tmp_path)
    for name in (".atoll", "☃" * 128, ".ssh"):
        workspace = await storage.workspace({b"a": b"x"}, name)
        assert name_of(workspace) == workspace.id
        await copies.follow(workspace.id)
        assert disk(tmp_path / workspace.owner / workspace.id) == {b"a": b"x"}


async def test_what_fails_leaves_the_old_copy(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = over(storage, tmp_path)
    workspace = await storage.workspace({b"a": b"first"})
    await copies.follow(workspace.id)
    shown = tmp_path / workspace.owner / "w"
    packs = set(storage.packs)
    workspace = await storage.revise(workspace, {b"a": b"first", b"b": noise(2, 4_000)})
    with monkeypatch.context() as patched:
        patched.setattr(copies, "_disk", FreeSpace([tmp_path], 2**62))
        with pytest.raises(StorageFull):
            await copies.follow(workspace.id)
    assert isinstance(storage.blobs, MemoryBlobs)
    damaged = (set(storage.packs) - packs).pop()
    storage.blobs.flip(damaged, 100)
    with pytest.raises(Corrupt):
        await copies.follow(workspace.id)
    assert disk(shown) == {b"a": b"first"}
    assert len(list((shown.parent / ".atoll" / workspace.id).iterdir())) == 1
    storage.blobs.flip(damaged, 100)
    await copies.follow(workspace.id)
    assert set(disk(shown)) == {b"a", b"b"}


async def test_what_is_not_ours_stays(storage: Storage, tmp_path: Path) -> None:
    copies = over(storage, tmp_path)
    workspace = await storage.workspace({b"a": b"x"})
    (tmp_path / workspace.owner / "w").mkdir(parents=True)
    (tmp_path / workspace.owner / "notes").symlink_to("/etc")
    with pytest.raises(FileExistsError):
        await copies.follow(workspace.id)
    await copies.reconcile()
    assert (tmp_path / workspace.owner / "w").is_dir() and (tmp_path / workspace.owner / "notes").is_symlink()


async def test_reconciling_removes_what_a_crash_left(storage: Storage, tmp_path: Path) -> None:
    workspace = await storage.workspace({b"a": b"x"})
    copies = over(storage, tmp_path)
    await copies.follow(workspace.id)
    user = tmp_path / workspace.owner
    (user / ".atoll" / workspace.id / ("0" * 64 + ".partial") / "half").mkdir(parents=True)
    (user / ".atoll" / GONE / ("0" * 64)).mkdir(parents=True)
    (user / "old name").symlink_to(f".atoll/{workspace.id}/{'0' * 64}")
    (user / "gone").symlink_to(f".atoll/{GONE}/{'0' * 64}")
    await copies.reconcile()
    assert sorted(path.name for path in user.iterdir()) == [".atoll", "w"]
    assert [path.name for path in (user / ".atoll").iterdir()] == [workspace.id]
    assert len(list((user / ".atoll" / workspace.id).iterdir())) == 1


async def test_a_service_keeps_the_folder_in_step(shop: Workshop, tmp_path: Path) -> None:
    folder = shop.plain_copies = tmp_path / "srv"
    await shop.restart()
    base = (await shop.create()).head.revision.id
    await shop.push("w", base, {b"a": b"1"})
    shown = folder / ALICE.id / "w"
    await until(lambda: disk(shown) == {b"a": b"1"})
    await shop.workspaces.forks.fork(ALICE, "w", "fork")
    await until(lambda: disk(folder / ALICE.id / "fork") == {b"a": b"1"})
    await shop.workspaces.change(ALICE, "w", Changes(name="renamed"))
    await until(lambda: disk(folder / ALICE.id / "renamed") == {b"a": b"1"} and not os.path.lexists(shown))
    await shop.workspaces.delete(ALICE, "renamed")
    await until(lambda: sorted(path.name for path in (folder / ALICE.id).iterdir()) == [".atoll", "fork"])
    await until(lambda: len(list((folder / ALICE.id / ".atoll").iterdir())) == 1)
    await shop.die()
    await asyncio.sleep(0)
    assert disk(folder / ALICE.id / "fork") == {b"a": b"1"}


async def test_what_others_keep_below_a_folder_of_that_name_stays(storage: Storage, tmp_path: Path) -> None:
    """An operator may have named /home: nothing there goes but what is named as ours, and nothing there stops us."""
    workspace = await storage.workspace({b"a": b"x"})
    for theirs in ("bob", workspace.owner):
        (tmp_path / theirs / ".atoll" / "config").mkdir(parents=True)
        (tmp_path / theirs / ".atoll" / "notes").write_text("theirs")
        (tmp_path / theirs / "settings").symlink_to(".atoll/config")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / ".atoll").write_text("theirs")
    ours = tmp_path / workspace.owner / ".atoll" / workspace.id
    ours.mkdir()
    (ours.parent / GONE).write_text("in place of a copy")
    (ours / ".link").symlink_to("left/by/a/crash")
    (ours / "mine").write_text("theirs")
    await over(storage, tmp_path).reconcile()
    assert disk(tmp_path / workspace.owner / "w") == {b"a": b"x"}
    assert not (ours.parent / GONE).exists() and ".link" not in os.listdir(ours)
    assert (ours / "mine").exists() and (tmp_path / "file" / ".atoll").exists()
    for theirs in ("bob", workspace.owner):
        assert (tmp_path / theirs / ".atoll" / "config").is_dir() and (tmp_path / theirs / ".atoll" / "notes").exists()
        assert (tmp_path / theirs / "settings").is_symlink()


def test_an_old_copy_that_cannot_be_opened_costs_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        with pytest.raises(FileNotFoundError):
            PlainTree(tmp_path / str(number), tmp_path / "none")
    assert len(os.listdir("/proc/self/fd")) == before
