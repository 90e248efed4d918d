"""Cutting: the contents of files on their way into chunks: hashed many at once on a thread, while the next are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from atoll.domain.chunk_ids import CHUNK_BYTES, hole_run
from atoll.domain.errors import Internal

BATCH_BYTES = 2**20  # of chunks that are hashed in one job


class ChunkSink(Protocol):
    """Where chunks go."""

    async def add_many(self, data: Sequence[bytes]) -> list[bytes]:
        """Their ids."""
        ...


class Cutting:
    """Files one after the other; leaving it gives the sink what is left, and the last Cuts their ids."""

    def __init__(self, sink: ChunkSink) -> None:
        self._sink = sink
        self._cuts: deque[Cut] = deque()  # without their ids yet
        self._ids: deque[bytes] = deque()  # of their chunks, as far as the sink has told
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._giving: asyncio.Task[list[bytes]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._give()
                await self._given()
        finally:
            if self._giving is not None:
                self._giving.cancel()
                await asyncio.gather(self._giving, return_exceptions=True)

    def begin(self, holes: tuple[tuple[int, int], ...], size: int) -> Cut:
        """The next file; the one before it has ended."""
        cut = Cut(holes, size, self)
        self._cuts.append(cut)
        return cut

    def add(self, chunk: bytes) -> None:
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)

    async def give(self) -> None:
        """Waits when the sink does not keep up."""
        if self._batch_bytes >= BATCH_BYTES:
            await self._give()

    async def _give(self) -> None:
        await self._given()
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        self._giving = asyncio.create_task(self._sink.add_many(batch)) if batch else None

    async def _given(self) -> None:
        if self._giving is not None:
            self._ids += await self._giving
            self._giving = None
        while self._cuts and self._cuts[0].ended:
            if self._cuts[0].chunks > len(self._ids):
                break
            cut = self._cuts.popleft()
            cut.ids = b"".join([self._ids.popleft() if run == 0 else hole_run(run) for run in cut.runs])


class Cut:
    """One file; its holes come as zeros, whole chunks of them as runs. `ids` is None until the sink has all others."""

    def __init__(self, holes: tuple[tuple[int, int], ...], size: int, cutting: Cutting) -> None:
        self.ids: bytes | None = None
        self.ended = False
        self.chunks = 0  # that have data
        self.runs: list[int] = []  # in order: of each chunk 0, of holes between them how many chunks they fill
        self._holes = list(reversed(holes))
        self._size = size
        self._cutting = cutting
        self._at: int = 0
        self._chunk = bytearray()
        self._has_data = False

    def feed(self, data: bytes) -> None:
        if not self._at and len(data) == self._size <= CHUNK_BYTES and not self._holes:  # most files
            self._add(data)
            self._at = len(data)
            return
        view = memoryview(data)
        while view:
            self._skip_holes()
            until = self._holes[-1][0] if self._holes else self._size
            take = min(len(view), until - self._at, CHUNK_BYTES - len(self._chunk))
            if take <= 0:
                raise Internal("a keeper sent more of a file than it has")
            self._chunk += view[:take]
            self._has_data = True
            view = view[take:]
            self._advance(take)

    def end(self) -> None:
        """All of it was fed."""
        self._skip_holes()
        if self._at != self._size:
            raise Internal("a keeper sent less of a file than it has")
        self.ended = True

    def _skip_holes(self) -> None:
        while self._holes and self._holes[-1][0] == self._at:
            left = self._holes.pop()[1]
            while left:
                whole = left // CHUNK_BYTES
                if not self._chunk and whole:
                    self._add_holes(whole)
                    self._at += whole * CHUNK_BYTES
                    left -= whole * CHUNK_BYTES
                    continue
                length = min(left, CHUNK_BYTES - len(self._chunk))
                self._chunk += bytes(length)
                left -= length
                self._advance(length)

    def _advance(self, length: int) -> None:
        self._at += length
        if len(self._chunk) < CHUNK_BYTES and self._at < self._size:
            return
        if self._has_data:
            self._add(bytes(self._chunk))
        else:
            self._add_holes(1)
        self._chunk.clear()
        self._has_data = False

    def _add(self, chunk: bytes) -> None:
        self._cutting.add(chunk)
        self.chunks += 1
        self.runs.append(0)

    def _add_holes(self, chunks: int) -> None:
        if self.runs and self.runs[-1]:
            self.runs[-1] += chunks
        else:
            self.runs.append(chunks)
