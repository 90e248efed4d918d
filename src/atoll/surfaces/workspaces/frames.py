"""Chunks on the wire: 32 bytes id, u32 size, u32 stored size (big endian), then so many bytes of zstd.

The sizes are checked here, so that nobody holds more than one chunk of a liar; what is inside is for the service.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE, ID_BYTES
from atoll.domain.errors import InvalidInput
from atoll.services.workspaces.views import SentChunk
from atoll.surfaces.bodies import close_iterator

HEAD = struct.Struct(f">{ID_BYTES}sII")
STORED_BYTES_MAX = CHUNK_BYTES + CHUNK_BYTES // 128 + 1024  # zstd's own bound for what does not compress, and a bit
PIECE_BYTES = 256 * 1024  # small frames travel together
IDS_MAX = 65_536


async def read_frames(pieces: AsyncIterator[bytes]) -> AsyncIterator[SentChunk]:
    """The frames of a body. InvalidInput names the first one whose head lies, or that is cut short."""
    buffer = bytearray()
    number = 1
    async for piece in pieces:
        buffer += piece
        while len(buffer) >= HEAD.size:
            chunk_id, size, stored = HEAD.unpack_from(buffer)
            _check_head(chunk_id, size, stored, number)
            end = HEAD.size + stored
            if len(buffer) < end:
                break
            yield SentChunk(chunk_id, size, bytes(buffer[HEAD.size : end]))
            del buffer[:end]
            number += 1
    if buffer:
        raise InvalidInput(f"frame {number} is cut short", field="frames")


def _check_head(chunk_id: bytes, size: int, stored: int, number: int) -> None:
    if chunk_id == HOLE:
        raise InvalidInput(f"frame {number}: the id of a hole is no chunk's", field="frames")
    for what, value, most in (("size", size, CHUNK_BYTES), ("stored size", stored, STORED_BYTES_MAX)):
        if not 1 <= value <= most:
            raise InvalidInput(f"frame {number}: its {what} must be within 1..{most}, not {value}", field="frames")


async def write_frames(chunks: AsyncIterator[SentChunk]) -> AsyncIterator[bytes]:
    """The frames of an answer, in pieces worth sending."""
    try:
        waiting = bytearray()
        async for chunk in chunks:
            waiting += HEAD.pack(chunk.id, chunk.size, len(chunk.data))
            waiting += chunk.data
            if len(waiting) >= PIECE_BYTES:
                yield bytes(waiting)
                waiting.clear()
        if waiting:
            yield bytes(waiting)
    finally:
        await close_iterator(chunks)


def read_ids(body: bytes) -> list[bytes]:
    """The ids in a body of them; InvalidInput unless it is whole ids, at most IDS_MAX."""
    count, rest = divmod(len(body), ID_BYTES)
    if rest or count > IDS_MAX:
        raise InvalidInput(f"the body must be at most {IDS_MAX:,} ids of {ID_BYTES} bytes each", field="ids")
    return [body[at : at + ID_BYTES] for at in range(0, len(body), ID_BYTES)]
