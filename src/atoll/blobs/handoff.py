"""Pieces that one task gives and another takes, one at a time; the giver may break it off, the taker may go away."""

from __future__ import annotations

import asyncio


class BrokenOff(Exception):
    """The giver will not give the rest."""


class Handoff:
    """The taker iterates; the giver calls `give`, then `end` or `break_off`; who sees the taker go calls `close`."""

    def __init__(self) -> None:
        self._queue = asyncio.Queue[bytes | None](maxsize=1)
        self._broken = False
        self._closed = False

    async def give(self, piece: bytes | None) -> None:
        """Wait until the piece before is taken; not when nobody takes any more."""
        if not self._closed:
            await self._queue.put(piece)

    async def end(self) -> None:
        await self.give(None)

    def break_off(self) -> None:
        """BrokenOff for the taker instead of the rest."""
        self._broken = True
        self.close()
        self._queue.put_nowait(None)

    def close(self) -> None:
        """Let go of what nobody takes."""
        self._closed = True
        while not self._queue.empty():
            self._queue.get_nowait()

    def __aiter__(self) -> Handoff:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._queue.get()
        if self._broken:
            raise BrokenOff
        if piece is None:
            raise StopAsyncIteration
        return piece
