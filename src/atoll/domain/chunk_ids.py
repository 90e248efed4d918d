"""Chunk ids: what stands for a file's contents in its entry: an id for each chunk, a count where chunks are holes.

The list is cut into slots of 32 bytes. A slot that begins with 24 zeros is a run of chunks that are nothing but a hole;
its last 8 bytes (big endian) count them, where 0 counts as 1. So a hole of terabytes is one slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

CHUNK_BYTES = 2**20  # a file's contents are cut here; its last chunk is shorter
ID_BYTES = 32
HOLE = bytes(ID_BYTES)  # a chunk that is nothing but a hole
RUN_MAX = 2**42  # chunks of one hole: an entry's size ends there as well
SLOTS_MAX = 2**18  # of one file: 256 GiB of contents; as a line of JSON 11 MiB

_RUN = bytes(24)  # no hash of anything that anybody finds begins like this


class Piece(NamedTuple):
    """A stretch of a file: a chunk, or a run of them that is a hole (`id` is HOLE then, `length` any)."""

    id: bytes
    offset: int
    length: int


def hole_run(chunks: int) -> bytes:
    """The slot of so many chunks in a row that are nothing but a hole; none at all for none."""
    if chunks <= 1:
        return HOLE * chunks
    return _RUN + chunks.to_bytes(ID_BYTES - len(_RUN), "big")


def data_ids(slots: bytes) -> Iterator[bytes]:
    """The ids of chunks in order, holes left out."""
    for at in range(0, len(slots), ID_BYTES):
        slot = slots[at : at + ID_BYTES]
        if not slot.startswith(_RUN):
            yield slot


def pieces(slots: bytes, size: int) -> Iterator[Piece]:
    """A file of `size` bytes from its first byte to its last."""
    slots, offset = joined(slots), 0
    for at in range(0, len(slots), ID_BYTES):
        slot = slots[at : at + ID_BYTES]
        if slot.startswith(_RUN):
            slot, chunks = HOLE, _run_of(slot)
        else:
            chunks = 1
        length = min(chunks * CHUNK_BYTES, size - offset)
        yield Piece(slot, offset, length)
        offset += length


def has_holes(slots: bytes) -> bool:
    """Whether any chunk is nothing but a hole."""
    return _RUN in slots


def count_chunks(slots: bytes) -> int:
    """How many chunks the file has, those of holes included."""
    if not has_holes(slots):
        return len(slots) // ID_BYTES
    every = (slots[at : at + ID_BYTES] for at in range(0, len(slots), ID_BYTES))
    return sum(_run_of(slot) if slot.startswith(_RUN) else 1 for slot in every)


def joined(slots: bytes) -> bytes:
    """The same with each run of holes in one slot: so that equal contents are equal lists. ValueError when a run has
    more than RUN_MAX chunks."""
    if len(slots) <= ID_BYTES or not has_holes(slots):
        return slots
    found: list[bytes] = []
    run = 0
    for at in range(0, len(slots), ID_BYTES):
        slot = slots[at : at + ID_BYTES]
        if slot.startswith(_RUN):
            run += _run_of(slot)
            if run > RUN_MAX:
                raise ValueError(f"a hole of {run} chunks, where {RUN_MAX} are the most")
            continue
        found += (hole_run(run), slot)
        run = 0
    return b"".join((*found, hole_run(run)))


def _run_of(slot: bytes) -> int:
    return int.from_bytes(slot[len(_RUN) :], "big") or 1
