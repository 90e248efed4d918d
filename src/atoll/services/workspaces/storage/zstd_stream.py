"""Zstd streams: archives on their way out and in, in threads and in bounded memory, whatever the other side sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any

import zstandard

from atoll.domain.errors import InvalidInput, TooLarge
from atoll.services.workspaces.storage.sealing import LEVEL, WINDOW_BYTES_MAX

InThread = Callable[..., Awaitable[Any]]

BLOCK_BYTES = 2**20  # compressed in one job; at least so much is decompressed in one, if there is as much
SLICE_BYTES = 512  # given to zstd at once: four bytes of a bomb make a block of 128 KiB, so a slice at most 16 MiB


async def compressed(pieces: AsyncIterable[bytes], in_thread: InThread) -> AsyncGenerator[bytes]:
    """The pieces as one zstd frame."""
    frame = zstandard.ZstdCompressor(level=LEVEL).compressobj()
    waiting: list[bytes] = []
    size = 0
    async for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES:
            if out := await in_thread(frame.compress, b"".join(waiting)):
                yield out
            waiting, size = [], 0
    yield await in_thread(frame.compress, b"".join(waiting)) + frame.flush()


async def decompressed(pieces: AsyncIterable[bytes], in_thread: InThread, bytes_max: int) -> AsyncGenerator[bytes]:
    """What the frames hold, in pieces of a few MiB. InvalidInput when they are no zstd frames, are cut short, want too
    large a window or have something behind them; TooLarge beyond `bytes_max`."""
    inflating = _Inflating(bytes_max)
    async for piece in pieces:
        inflating.give(piece)
        while inflating.has_input:
            if out := await in_thread(inflating.take):
                yield out
    inflating.end()


class _Inflating:
    """Frames, one after the other."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._frames = 0
        self._input = memoryview(b"")

    @property
    def has_input(self) -> bool:
        return len(self._input) > 0

    def give(self, piece: bytes) -> None:
        """Further input; what was given before has been taken."""
        self._input = memoryview(piece)

    def take(self) -> bytes:
        """Some of what the input holds; the input gets shorter."""
        parts: list[bytes] = []
        size = 0
        while self._input and size < BLOCK_BYTES:
            if self._frame is None:
                self._frame = self._zstd.decompressobj()
                self._frames += 1
            given = self._input[:SLICE_BYTES]
            try:
                out = self._frame.decompress(given)
            except zstandard.ZstdError as error:
                raise InvalidInput(f"not a zstd archive: {error}") from None
            unused = 0
            if self._frame.eof:
                unused = len(self._frame.unused_data)
                self._frame = None
            self._input = self._input[len(given) - unused :]
            size += len(out)
            parts.append(out)
        self._left -= size
        if self._left < 0:
            raise TooLarge(f"the archive unpacks to more than {self._bytes_max} bytes")
        return b"".join(parts)

    def end(self) -> None:
        """InvalidInput unless the last frame has ended."""
        if self._frame is not None or not self._frames:
            raise InvalidInput("not a zstd archive: it is cut short")
