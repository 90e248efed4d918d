"""What a local file holds: holes are neither read nor written, and a giant that is nearly all hole is read at once."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE, ID_BYTES
from atoll.domain.tree import Entry, EntryKind, check_entries, chunk_id
from atoll.sdk.sync import contents
from atoll.sdk.sync.contents import read_contents
from atoll.sdk.sync.folder import Folder, write_chunk

ROOT = Entry(b"", EntryKind.DIRECTORY)
TIB = 2**40


def entry_of(path: Path) -> Entry:
    status, chunks, holes, _ = read_contents(os.fsencode(path))
    entry = Entry(b"f", EntryKind.FILE, size=status.st_size, chunks=chunks, holes=holes)
    list(check_entries([ROOT, entry]))
    return entry


@pytest.mark.parametrize("seed", range(3))
def test_chunks_are_of_what_the_file_holds_wherever_its_holes_are(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "f"
    with path.open("wb") as file:
        for _ in range(chance.randint(1, 6)):
            file.seek(chance.randrange(12 * CHUNK_BYTES))
            file.write(chance.randbytes(chance.choice((1, 4096, CHUNK_BYTES, CHUNK_BYTES + 5))))
        file.truncate(chance.randrange(14 * CHUNK_BYTES))
    entry, data = entry_of(path), path.read_bytes()
    for id, offset, length in entry.pieces():
        piece = data[offset : offset + length]
        assert piece == bytes(length) if id == HOLE else chunk_id(piece) == id
    holes = [number for at, size in entry.holes for number in range(at // 4096, (at + size) // 4096)]
    assert all(not data[number * 4096 : (number + 1) * 4096].strip(b"\0") for number in holes)


def test_a_giant_is_read_at_once_and_written_as_sparse_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.seek(TIB // 2 + 5)
        file.write(b"middle")
        file.truncate(TIB + 7)
    entry = entry_of(path)
    assert len(entry.chunks) == 3 * ID_BYTES
    (tmp_path / "copy").mkdir()
    folder = Folder(str(tmp_path / "copy"))
    try:
        name, file = folder.new_file(b"f")
        for id, offset, length in entry.pieces():
            if id != HOLE:
                write_chunk(file, entry, offset, path_bytes(path, offset, length))
        folder.finish_file(name, file, entry)
        os.close(file)
    finally:
        folder.close()
    copy = tmp_path / "copy" / "f"
    assert (copy.stat().st_size, copy.stat().st_blocks) == (path.stat().st_size, path.stat().st_blocks)
    assert path_bytes(copy, TIB // 2, 12) == b"\0" * 5 + b"middle" + b"\0"


def path_bytes(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)


def test_a_file_with_more_to_tell_than_an_entry_may_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        for number in range(8):
            file.seek(number * 4 * CHUNK_BYTES)
            file.write(b"x")
    monkeypatch.setattr("atoll.domain.tree.SLOTS_MAX", 10)
    with pytest.raises(OSError, match="at most 10 chunks and holes") as refused:
        read_contents(os.fsencode(path))
    assert refused.value.errno == errno.EFBIG
    monkeypatch.undo()
    monkeypatch.setattr(contents, "HOLES_MAX", 4)
    with pytest.raises(OSError) as refused:
        read_contents(os.fsencode(path))
    assert refused.value.errno == errno.EFBIG
