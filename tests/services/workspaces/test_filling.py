"""What is written into a tree: what differs, every further name of a file that changes, holes as holes; and splices."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.tree import Entry, EntryKind, check_entries, chunk_id
from atoll.services.workspaces.trees.filling import difference, steps
from atoll.services.workspaces.trees.splicing import splice
from atoll.sidekick.keeper_client import Data, Remove, Skip, Write
from tests.services.conftest import ALICE

from .workshop import Workshop

ROOT = Entry(b"", EntryKind.DIRECTORY, 0o755)


def file(path: bytes, data: bytes = b"x", **fields: object) -> Entry:
    return Entry(path, EntryKind.FILE, size=len(data), chunks=chunk_id(data), **fields)  # type: ignore[arg-type]


def link(path: bytes, target: bytes) -> Entry:
    return Entry(path, EntryKind.HARDLINK, 0, 0, target=target)


def folder(path: bytes) -> Entry:
    return Entry(path, EntryKind.DIRECTORY, 0o755)


class Chunks:
    """Chunks by id."""

    def __init__(self, *data: bytes) -> None:
        self._data = {chunk_id(one): one for one in data}

    async def fetch(self, lineage: str, ids: Iterable[bytes]) -> AsyncGenerator[tuple[bytes, bytes]]:
        for id in ids:
            yield id, self._data[id]


def test_a_file_that_is_written_brings_its_further_names_along() -> None:
    before = [ROOT, file(b"a"), folder(b"d"), link(b"d/b", b"a"), file(b"z")]
    after = [ROOT, file(b"a", b"new"), folder(b"d"), link(b"d/b", b"a"), file(b"z")]
    written, gone = difference(before, after)
    assert [entry.path for entry in written] == [b"", b"a", b"d", b"d/b"]
    assert gone == []


def test_what_goes_goes_with_its_folder_whose_times_are_set() -> None:
    before = [ROOT, folder(b"d"), folder(b"d/e"), file(b"d/e/f"), file(b"d/g")]
    after = [ROOT, folder(b"d"), file(b"d/g")]
    written, gone = difference(before, after)
    assert gone == [b"d/e"]
    assert [entry.path for entry in written] == [b"d"]


async def test_holes_are_skipped_wherever_they_begin_and_end() -> None:
    data = b"a" * 100 + bytes(50) + b"b" * 10
    size = 2 * CHUNK_BYTES + len(data)
    entry = Entry(
        b"s",
        EntryKind.FILE,
        size=size,
        chunks=HOLE + HOLE + chunk_id(data),
        holes=((0, 2 * CHUNK_BYTES), (2 * CHUNK_BYTES + 100, 50)),
    )
    made = [step async for step in steps("lin", [ROOT, entry], [b"old"], Chunks(data))]
    assert made == [
        Remove(b"old"),
        Write(ROOT),
        Write(entry),
        Skip(2 * CHUNK_BYTES),
        Data(b"a" * 100),
        Skip(50),
        Data(b"b" * 10),
    ]


def test_a_splice_keeps_hardlinks_whole_on_both_sides() -> None:
    now = [ROOT, file(b"a", b"now"), folder(b"d"), link(b"d/x", b"a"), link(b"z", b"a")]
    then = [ROOT, folder(b"d"), file(b"d/x", b"then"), link(b"d/y", b"d/x"), link(b"q", b"d/x")]
    spliced = splice(now, then, b"d")
    assert list(check_entries(spliced)) == [
        ROOT,
        file(b"a", b"now"),
        folder(b"d"),
        file(b"d/x", b"then"),
        link(b"d/y", b"d/x"),
        link(b"z", b"a"),
    ]
    assert splice(now, then, b"a") == [ROOT, folder(b"d"), file(b"d/x", b"now"), link(b"z", b"d/x")]


def test_a_splice_brings_folders_back_in_place_of_what_stands_in_their_way() -> None:
    spliced = splice([ROOT, file(b"d")], [ROOT, folder(b"d"), folder(b"d/e"), file(b"d/e/f")], b"d/e/f")
    assert [entry.path for entry in check_entries(spliced)] == [b"", b"d", b"d/e", b"d/e/f"]


async def test_sparse_files_and_attributes_come_back_as_they_were(shop: Workshop) -> None:
    await shop.create()
    await shop.mount("w")
    path = await shop.folder("w") / "sparse"
    with path.open("wb") as out:
        out.write(b"begin")
        out.seek(3 * CHUNK_BYTES + 8192)
        out.write(b"end")
        out.truncate(5 * CHUNK_BYTES)
    os.setxattr(path, "user.note", b"\0kept\xff")
    path.chmod(0o4751)
    os.utime(path, ns=(1, 1_234_567_891_123_456_789))
    before, contents = path.stat(), path.read_bytes()
    await shop.take()
    path.unlink()
    await shop.workspaces.restoring.undo(ALICE, "w")
    after = await shop.folder("w") / "sparse"
    assert after.read_bytes() == contents
    assert after.stat().st_blocks <= before.st_blocks
    assert (after.stat().st_mode, after.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert os.getxattr(after, "user.note") == b"\0kept\xff"
