"""Frames of chunks: what is cut out of a body, and every way in which one can lie about itself."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable

import pytest

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.errors import InvalidInput
from atoll.domain.tree import chunk_id
from atoll.services.workspaces.views import SentChunk
from atoll.surfaces.workspaces.frames import HEAD, STORED_BYTES_MAX, read_frames, read_ids, write_frames

CHUNKS = [SentChunk(chunk_id(bytes([n])), n + 1, bytes([n]) * (n * 997 + 1)) for n in range(40)]


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def each(values: Iterable[SentChunk]) -> AsyncIterator[SentChunk]:
    for value in values:
        yield value


async def written(chunks: Iterable[SentChunk]) -> bytes:
    return b"".join([piece async for piece in write_frames(each(chunks))])


async def read(body: bytes, size: int = 4096) -> list[SentChunk]:
    return [frame async for frame in read_frames(pieces(body, size))]


@pytest.mark.parametrize("size", [1, 7, 40, 4096, 2**20])
async def test_frames_come_back_however_the_body_is_cut(size: int) -> None:
    chunks = CHUNKS[:5] if size == 1 else CHUNKS
    assert await read(await written(chunks), size) == chunks


async def test_an_answer_tells_of_chunks_that_do_not_exist() -> None:
    assert await written([SentChunk(b"i" * 32, 0, b"")]) == b"i" * 32 + bytes(8)


async def test_an_empty_body_has_no_frames() -> None:
    assert await read(b"") == []


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ((b"i" * 32, 5, 0), "frame 3: its stored size must be within"),
        ((b"i" * 32, 0, 5), "frame 3: its size must be within"),
        ((b"i" * 32, CHUNK_BYTES + 1, 5), "frame 3: its size must be within"),
        ((b"i" * 32, 5, STORED_BYTES_MAX + 1), "frame 3: its stored size must be within"),
        ((b"i" * 32, 2**32 - 1, 2**32 - 1), "frame 3: its size must be within"),
        ((HOLE, 5, 5), "frame 3: the id of a hole"),
    ],
)
async def test_a_head_that_lies_is_named_before_its_bytes_are_waited_for(
    head: tuple[bytes, int, int], text: str
) -> None:
    body = await written(CHUNKS[:2]) + struct.pack(">32sII", *head)
    taken: list[SentChunk] = []
    with pytest.raises(InvalidInput, match=text):
        async for frame in read_frames(pieces(body, 4096)):
            taken.append(frame)
    assert taken == CHUNKS[:2]


@pytest.mark.parametrize("cut", [1, HEAD.size - 1, HEAD.size, HEAD.size + 1])
async def test_a_frame_that_is_cut_short_is_named(cut: int) -> None:
    whole = await written(CHUNKS[:1])
    with pytest.raises(InvalidInput, match="frame 2 is cut short"):
        await read(whole + (await written(CHUNKS[5:6]))[:cut])


def test_ids_are_whole_and_bounded() -> None:
    assert read_ids(b"a" * 32 + b"b" * 32) == [b"a" * 32, b"b" * 32]
    assert read_ids(b"") == []
    with pytest.raises(InvalidInput):
        read_ids(b"a" * 33)
    with pytest.raises(InvalidInput):
        read_ids(bytes(32 * 65_537))
