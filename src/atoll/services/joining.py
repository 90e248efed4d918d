"""Joining: two byte streams become one, as a connection to a port of a sandbox and its client do.

Listeners join what they accept; the bytes that wait are bounded each way.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

CHUNK_BYTES = 65_536
HELD_BYTES = 32_768  # that wait to be copied or written, each way, where more is neither read nor copied


class Readable(Protocol):
    """As much of a StreamReader as is needed here: empty bytes are the end."""

    async def read(self, n: int = -1, /) -> bytes: ...


class Stream(NamedTuple):
    """One connection."""

    reader: StreamReader | Readable
    writer: StreamWriter


async def join(one: Stream, other: Stream, *, half_closed_s: float, idle_s: float | None = None) -> None:
    """Copy both ways until both sides have said all, and close both; an end on one side is passed on as a half-close.

    A side that after the other's end says nothing for `half_closed_s`, or then does not read what is left for it, is
    given up: a program that never closes would else keep the places of all the clients that have left it. So are both
    when neither says anything for `idle_s`. Cancelled, it cuts both at once.
    """
    try:
        await _copy_all(one, other, half_closed_s, idle_s)
        await _let_finish(one.writer, other.writer, within_s=half_closed_s)
    finally:
        for side in (one, other):
            side.writer.transport.abort()


async def _copy_all(one: Stream, other: Stream, half_closed_s: float, idle_s: float | None) -> None:
    flow = _Flow()
    for side in (one, other):
        side.writer.transport.set_write_buffer_limits(high=HELD_BYTES)
    copies = (flow.copy(one.reader, other.writer), flow.copy(other.reader, one.writer))
    left = {asyncio.create_task(copy) for copy in copies}
    try:
        ended: set[asyncio.Task[None]] = set()
        while not ended:
            before = flow.pieces
            ended, left = await asyncio.wait(left, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended and flow.pieces == before:
                return
        while left:
            before = flow.pieces
            _, left = await asyncio.wait(left, timeout=half_closed_s)
            if flow.pieces == before:
                return
    finally:
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


async def _let_finish(*writers: StreamWriter, within_s: float) -> None:
    """Close them, with so long for their sides to read what is left."""
    for writer in writers:
        writer.close()
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(within_s):
            for writer in writers:
                await writer.wait_closed()


@dataclass(slots=True)
class _Flow:
    pieces: int = 0  # that went either way

    async def copy(self, reader: StreamReader | Readable, writer: StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if writer.is_closing():  # uvloop raises a RuntimeError where asyncio would ignore the bytes
                    return
                self.pieces += 1
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()
        except (ConnectionError, OSError):
            writer.transport.abort()
