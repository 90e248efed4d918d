"""Giants: files of terabytes that are nearly all hole cost what is in them, on every way through a workspace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.domain.chunk_ids import CHUNK_BYTES, ID_BYTES
from atoll.domain.errors import QuotaExceeded, TooLarge
from tests.services.conftest import ALICE

from .test_importing import exported, import_, unowned
from .workshop import Workshop

TIB = 2**40
SPARSE_BYTES = 2**20  # on the disk, at most


def giant(path: Path, size: int = TIB) -> None:
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(size // 2 + 100)
        file.write(b"middle")
        file.seek(size - 3)
        file.write(b"end")


def is_giant(path: Path, size: int = TIB) -> bool:
    with path.open("rb") as file:
        found = [os.pread(file.fileno(), *at) for at in ((8, 0), (6, size // 2 + 100), (8, size - 3))]
    status = path.stat()
    return (
        found == [b"begin\0\0\0", b"middle", b"end"]
        and status.st_size == size
        and status.st_blocks * 512 < SPARSE_BYTES
    )


async def test_a_sparse_file_of_a_terabyte_goes_every_way(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    giant(folder / "giant")
    (folder / "small").write_text("beside it")
    first = await shop.take()
    (entry,) = [one for one in await shop.entries("w") if one.path == b"giant"]
    assert (entry.size, len(entry.chunks)) == (TIB, 5 * ID_BYTES)
    assert first.bytes == TIB + len("beside it")

    with (folder / "giant").open("r+b") as file:
        os.pwrite(file.fileno(), b"more", TIB // 4)
    os.truncate(folder / "small", 3 * TIB)
    second = await shop.take()
    diff = await shop.workspaces.history.diff(ALICE, "w")
    assert [(one.path, one.change) for one in diff.changes] == [(b"giant", "changed"), (b"small", "changed")]

    await shop.workspaces.restoring.restore(ALICE, "w", str(first.number))
    assert is_giant(await shop.folder("w") / "giant")
    await shop.workspaces.restoring.restore(ALICE, "w", str(second.number), "small")
    assert (await shop.folder("w") / "small").stat().st_size == 3 * TIB

    await shop.workspaces.forks.fork(ALICE, "w", "fork", str(first.number))
    await shop.mount("fork")
    assert is_giant(await shop.folder("fork") / "giant")

    await shop.create("copy")
    await import_(shop, await exported(shop, "w"), "copy")
    assert unowned(await shop.entries("copy")) == unowned(await shop.entries("w"))

    snapshot = await shop.workspaces.snapshots.create(ALICE, "w", own_key=True)
    assert snapshot.bytes == 4 * TIB
    report = await shop.workspaces.verify(ALICE, "w")
    assert report.corrupt == [] and report.bytes < 64 * CHUNK_BYTES


async def test_a_giant_with_more_holes_than_are_told_is_read_without_its_long_ones(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    path = await shop.folder("w") / "scattered"
    with path.open("wb") as file:
        for number in range(4_200):
            file.seek(number * 8192)
            file.write(b"x")
        file.seek(TIB)
        file.write(b"end")
    await shop.take()
    (entry,) = [one for one in await shop.entries("w") if one.path == b"scattered"]
    assert len(entry.chunks) == 35 * ID_BYTES
    before = path.stat().st_blocks
    path.unlink()
    await shop.workspaces.restoring.undo(ALICE, "w")
    after = await shop.folder("w") / "scattered"
    with after.open("rb") as file:
        assert os.pread(file.fileno(), 4, TIB) == b"end"
        assert file.read(4_200 * 8192) == b"".join(b"x" + bytes(8191) for _ in range(4_200))
    assert before <= after.stat().st_blocks < 1.1 * before


async def test_a_file_that_no_revision_can_have_is_told_to_the_owner_until_it_is_gone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.domain.tree.SLOTS_MAX", 3)
    await shop.create()
    await shop.mount("w")
    folder = await shop.folder("w")
    giant(folder / "scattered")
    (folder / "other").write_text("kept")
    for _ in range(2):
        with pytest.raises(TooLarge, match=r"'scattered'.*at most 3 chunks and holes.*no revision can be taken"):
            await shop.take()
    view = await shop.workspaces.get(ALICE, "w")
    assert view.unrecorded is not None and "'scattered'" in view.unrecorded.message
    events = [one for one in await shop.records.list_events() if one.action == "workspace.unrecorded"]
    assert [(one.target, one.detail["message"]) for one in events] == [(view.workspace.id, view.unrecorded.message)]
    assert (folder / "other").read_text() == "kept"
    (folder / "scattered").unlink()
    await shop.take()
    assert (await shop.workspaces.get(ALICE, "w")).unrecorded is None
    assert await shop.files("w") == {b"other": b"kept"}


async def test_what_only_differs_in_its_sizes_is_told_once_and_a_deletion_forgets_it(shop: Workshop) -> None:
    workspace = (await shop.create()).workspace
    unrecorded, old_trees = shop.parts.unrecorded, shop.parts.old_trees
    for size in (1, 2):
        await unrecorded.tell(workspace, QuotaExceeded(f"{size} GiB more do not fit"))
        workspace = await shop.parts.access.current(workspace.id)
        await old_trees._tell(workspace, "tree_1", QuotaExceeded(f"{size} GiB more do not fit"))
        workspace = await shop.parts.access.current(workspace.id)
    told = [one.action for one in await shop.records.list_events() if one.action.startswith("workspace.")]
    assert sorted(told) == ["workspace.created", "workspace.old_tree_unread", "workspace.unrecorded"]
    problem = (await shop.workspaces.get(ALICE, "w")).unrecorded
    assert problem is not None and problem.message == "2 GiB more do not fit"
    await unrecorded.tell(workspace, TooLarge("something else"))
    assert len([one for one in await shop.records.list_events() if one.action == "workspace.unrecorded"]) == 2
    await shop.workspaces.delete(ALICE, "w")
    assert unrecorded.of(workspace.id) is None
