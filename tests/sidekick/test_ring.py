"""The ring: offsets never lie, nothing newer is lost, and no more is kept than its limit and one chunk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.sidekick.protocol import STDERR, STDOUT
from atoll.sidekick.ring import Ring

Chunks = list[tuple[int, bytes]]
CHUNKS = st.lists(st.tuples(st.sampled_from((STDOUT, STDERR)), st.binary(min_size=1, max_size=40)), max_size=40)


def filled(limit: int, chunks: Chunks) -> Ring:
    ring = Ring(limit)
    for stream, data in chunks:
        ring.append(stream, data)
    return ring


def read_all(ring: Ring, offset: int) -> Chunks:
    pieces: Chunks = []
    offset = max(offset, ring.start)
    while (piece := ring.read(offset)) is not None:
        pieces.append(piece)
        offset += len(piece[1])
    assert offset >= ring.end
    return pieces


@given(CHUNKS, st.integers(1, 200), st.integers(0, 2000))
def test_what_is_read_is_the_end_of_what_was_written(chunks: Chunks, limit: int, offset: int) -> None:
    ring = filled(limit, chunks)
    whole = b"".join(data for _, data in chunks)
    assert ring.end == len(whole)
    read = b"".join(data for _, data in read_all(ring, offset))
    assert read == whole[max(offset, ring.start) :]
    assert len(whole) - ring.start >= min(limit, len(whole))
    assert ring.end - ring.start <= limit + 40


@given(CHUNKS, st.integers(1, 200))
def test_each_byte_keeps_its_stream(chunks: Chunks, limit: int) -> None:
    ring = filled(limit, chunks)
    streams = [stream for stream, data in chunks for _ in data]
    assert [stream for stream, data in read_all(ring, 0) for _ in data] == streams[ring.start :]


@given(CHUNKS, st.integers(1, 200), st.integers(1, 50))
def test_a_reader_at_or_beyond_what_would_drop_loses_nothing(chunks: Chunks, limit: int, size: int) -> None:
    ring = filled(limit, chunks)
    safe = ring.would_drop(size)
    ring.append(STDOUT, bytes(size))
    assert ring.start <= max(safe, 0) or ring.start == 0


def test_reading_at_the_end_gives_nothing() -> None:
    ring = Ring(10)
    assert ring.read(0) is None
    ring.append(STDOUT, b"abc")
    assert ring.read(3) is None
    assert ring.read(1 << 62) is None
    assert ring.read(1) == (STDOUT, b"bc")
