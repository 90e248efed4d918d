"""Chunk reader: many chunks of one lineage in the order asked for, read ahead in large pieces, opened in threads.

Chunks are taken together in *runs*, bounded by bytes; neighbours of a pack within a run are read at once (a *span*).
A few runs are under way at once, so memory stays bounded however many chunks are asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from atoll.domain.errors import Corrupt, NotFound
from atoll.domain.workspace import StoredChunk
from atoll.services.workspaces.storage.packs import pack_key
from atoll.services.workspaces.storage.sealing import Sealer

if TYPE_CHECKING:
    from atoll.services.workspaces.storage.chunks import ChunkStore
    from atoll.services.workspaces.storage.healing import Healer

T = TypeVar("T")
Opening = Callable[[Sealer, StoredChunk, memoryview], T]
Run = list[tuple[bytes, StoredChunk | None]]


class Span(NamedTuple):
    """Neighbours in a pack: bytes `offset` to `end` of it."""

    pack: str
    offset: int
    end: int
    chunks: list[StoredChunk]


class ChunkReader(Generic[T]):
    """Reads chunks and turns each into what `opening` makes of it; Corrupt stands for one that cannot be read."""

    def __init__(self, store: ChunkStore, lineage: str, key: bytes, opening: Opening[T]) -> None:
        self._store = store
        self._limits = store.limits
        self._lineage = lineage
        self._key = key
        self._opening = opening

    async def read(
        self, ids: Iterable[bytes] | AsyncIterable[bytes]
    ) -> AsyncGenerator[tuple[bytes, T | Corrupt | None]]:
        """(id, what `opening` made of it) in order; Corrupt instead when it is damaged, None when it does not exist."""
        reading: deque[asyncio.Task[list[tuple[bytes, T | Corrupt | None]]]] = deque()
        try:
            async with aclosing(self._runs(ids)) as runs:
                async for run in runs:
                    reading.append(asyncio.create_task(self._read(run)))
                    if len(reading) >= self._limits.runs:
                        for item in await reading.popleft():
                            yield item
            while reading:
                for item in await reading.popleft():
                    yield item
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _runs(self, ids: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncGenerator[Run]:
        run: Run = []
        run_bytes = 0
        async with aclosing(_windows(ids, self._limits.lookup_chunks)) as windows:
            async for window in windows:
                places = await self._store.records.find_chunks(self._lineage, set(window))
                for chunk in window:
                    place = places.get(chunk)
                    size = place.bytes if place else 0
                    if run and (run_bytes + size > self._limits.run_bytes or len(run) >= self._limits.run_chunks):
                        yield run
                        run, run_bytes = [], 0
                    run.append((chunk, place))
                    run_bytes += size
        if run:
            yield run

    async def _read(self, run: Run) -> list[tuple[bytes, T | Corrupt | None]]:
        places = {place.id: place for _, place in run if place is not None}
        opened = await self._open(places)
        lost = [chunk for chunk, value in opened.items() if isinstance(value, _Lost)]
        if lost:  # the collector may have moved them since we looked them up
            again = await self._store.records.find_chunks(self._lineage, lost)
            moved = {chunk: place for chunk, place in again.items() if place != places[chunk]}
            opened.update(await self._open(moved))
            places |= moved
        healer = self._store.healer
        if healer is not None and (healed := await self._healed(healer, places, opened)):
            opened.update(await self._open(healed))
        return [(chunk, opened[chunk] if place else None) for chunk, place in run]

    async def _healed(
        self, healer: Healer, places: dict[bytes, StoredChunk], opened: dict[bytes, T | Corrupt]
    ) -> dict[bytes, StoredChunk]:
        """Those of the damaged chunks whose packs the first store has whole again. Lost packs are looked at again."""
        damaged = {chunk: place for chunk, place in places.items() if isinstance(opened.get(chunk), Corrupt)}
        packs = {one.pack for one in damaged.values()}
        if healer.lost:
            packs |= {one.pack for one in places.values() if pack_key(self._lineage, one.pack) in healer.lost}
        whole = {pack: await healer.heal(self._lineage, pack, self._key) for pack in packs}
        return {chunk: place for chunk, place in damaged.items() if whole[place.pack]}

    async def _open(self, places: dict[bytes, StoredChunk]) -> dict[bytes, T | Corrupt]:
        spans = coalesce(places.values(), self._limits.gap_bytes)
        data = await asyncio.gather(*(self._get(span) for span in spans))
        return await self._store.in_thread(self._open_spans, spans, data)

    async def _get(self, span: Span) -> bytes | None:
        async with self._store.ranges:
            try:
                key = pack_key(self._lineage, span.pack)
                return await self._store.blobs.get_range(key, span.offset, span.end - span.offset)
            except (NotFound, Corrupt):
                return None

    def _open_spans(self, spans: Sequence[Span], data: Sequence[bytes | None]) -> dict[bytes, T | Corrupt]:
        sealer = Sealer(self._key, self._lineage)
        opened: dict[bytes, T | Corrupt] = {}
        for span, piece in zip(spans, data, strict=True):
            view = memoryview(piece or b"")
            for chunk in span.chunks:
                try:
                    if piece is None:
                        what = f"pack {span.pack} of {self._lineage} is missing or cut short"
                        raise _Lost(f"{what}: chunk {chunk.id.hex()} is lost")
                    at = chunk.offset - span.offset
                    opened[chunk.id] = self._opening(sealer, chunk, view[at : at + chunk.stored_bytes])
                except Corrupt as error:
                    opened[chunk.id] = error
        return opened


class _Lost(Corrupt):
    """A pack is missing."""


def coalesce(chunks: Iterable[StoredChunk], gap_bytes: int) -> list[Span]:
    """Spans that cover the chunks, with gaps of at most that many bytes inside."""
    spans: list[Span] = []
    for chunk in sorted(chunks, key=lambda chunk: (chunk.pack, chunk.offset)):
        end = chunk.offset + chunk.stored_bytes
        if spans and spans[-1].pack == chunk.pack and chunk.offset <= spans[-1].end + gap_bytes:
            last = spans.pop()
            spans.append(Span(chunk.pack, last.offset, max(last.end, end), last.chunks))
        else:
            spans.append(Span(chunk.pack, chunk.offset, end, []))
        spans[-1].chunks.append(chunk)
    return spans


async def _windows(ids: Iterable[bytes] | AsyncIterable[bytes], size: int) -> AsyncGenerator[list[bytes]]:
    window: list[bytes] = []
    if isinstance(ids, AsyncIterable):
        async for chunk in ids:
            window.append(chunk)
            if len(window) >= size:
                yield window
                window = []
    else:
        for chunk in ids:
            window.append(chunk)
            if len(window) >= size:
                yield window
                window = []
    if window:
        yield window
