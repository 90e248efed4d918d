"""Chunk ids: holes of any length are one slot, and every way to write them is one list."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE, ID_BYTES, count_chunks, data_ids, hole_run, joined, pieces
from atoll.domain.errors import InvalidInput
from atoll.domain.tree import (
    FILE_BYTES_MAX,
    HOLES_MAX,
    Entry,
    EntryKind,
    check_entries,
    chunk_id,
    decode_entry,
    encode_entry,
)

from .trees import root

IDS = [chunk_id(bytes([number])) for number in range(3)]


@given(st.lists(st.sampled_from([*IDS, None]), max_size=12), st.data())
def test_holes_written_one_by_one_or_as_runs_are_the_same(chunks: list[bytes | None], draw: st.DataObject) -> None:
    one_by_one = b"".join(chunk or HOLE for chunk in chunks)
    some_joined = b""
    waiting = 0
    for chunk in [*chunks, b""]:
        if chunk is None and draw.draw(st.booleans()):
            waiting += 1
            continue
        some_joined += hole_run(waiting) + (HOLE if chunk is None else chunk)
        waiting = 0
    assert joined(one_by_one) == joined(some_joined) == joined(joined(one_by_one))
    assert list(data_ids(joined(one_by_one))) == [chunk for chunk in chunks if chunk]
    assert count_chunks(one_by_one) == count_chunks(some_joined) == count_chunks(joined(one_by_one)) == len(chunks)
    size = max(0, len(chunks) * CHUNK_BYTES - 5)
    told = list(pieces(one_by_one, size))
    assert told == list(pieces(joined(one_by_one), size))
    assert sum(piece.length for piece in told) == size
    assert [piece.offset for piece in told] == [sum(one.length for one in told[:at]) for at in range(len(told))]


def test_a_hole_of_terabytes_is_one_slot() -> None:
    entry = Entry(b"f", EntryKind.FILE, size=2**43, chunks=hole_run(2**23), holes=((0, 2**43),))
    assert len(entry.chunks) == ID_BYTES and len(encode_entry(entry)) < 150
    assert list(check_entries([root(), entry]))[1] == entry
    assert list(entry.chunk_ids()) == []
    assert list(entry.pieces()) == [(HOLE, 0, 2**43)]


def test_an_entry_of_an_older_version_that_names_each_chunk_of_a_hole_is_read() -> None:
    fields = json.loads(encode_entry(Entry(b"f", EntryKind.FILE, size=4 * CHUNK_BYTES, chunks=IDS[0] + hole_run(3))))
    old = Entry(b"f", EntryKind.FILE, size=4 * CHUNK_BYTES, chunks=IDS[0] + HOLE * 3)
    assert json.loads(encode_entry(old)) != fields
    assert json.loads(encode_entry(decode_entry(encode_entry(old)))) == fields


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry(b"f", EntryKind.FILE, size=2**40, chunks=hole_run(2**20 + 1)), "need 1048576 chunk ids"),
        (Entry(b"f", EntryKind.FILE, size=2**40, chunks=hole_run(2**64 - 1)), "need 1048576 chunk ids"),
        (Entry(b"f", EntryKind.FILE, size=2**40, chunks=hole_run(2**20)[:-1]), "need 1048576 chunk ids"),
        (Entry(b"f", EntryKind.FILE, size=FILE_BYTES_MAX + 1, chunks=hole_run(2**24)), "at most"),
        (
            Entry(b"f", EntryKind.FILE, size=2**40, chunks=hole_run(2**20), holes=((0, 1),) * (HOLES_MAX + 1)),
            "too far apart",
        ),
    ],
)
def test_a_file_that_no_tree_could_hold_is_refused_with_its_name(entry: Entry, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"path 'f'.*{said}"):
        list(check_entries([root(), entry]))


def test_a_hole_beyond_all_sizes_is_bad_input() -> None:
    endless = base64.b64encode(2 * (bytes(24) + b"\xff" * 8)).decode()
    with pytest.raises(InvalidInput, match=r"a hole of \d+ chunks, where 4398046511104 are the most"):
        decode_entry(json.dumps(["f", "f", 0o644, 0, 1000, 1000, 2**40, endless]))
