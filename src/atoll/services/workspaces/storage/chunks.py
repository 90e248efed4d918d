"""Chunk store: chunks of a lineage by their id, in packs in blobs, their places in the records.

Everything else of workspaces keeps bytes here and nowhere else. What is read is verified: a byte that is not what was
stored is Corrupt, never data. docs/decisions/0007-found-chunks-stay.md says how it and the collector get along.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import ParamSpec, TypeVar

import zstandard

from atoll.blobs.base import Blobs
from atoll.domain.errors import Corrupt
from atoll.domain.workspace import StoredChunk
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.workspaces.storage.allowance import Allowance
from atoll.services.workspaces.storage.chunk_reader import ChunkReader
from atoll.services.workspaces.storage.chunk_writer import ChunkWriter
from atoll.services.workspaces.storage.healing import Healer
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.storage.sealing import ZSTD, Sealer
from atoll.services.workspaces.storage.storage_limits import StorageLimits

P = ParamSpec("P")
T = TypeVar("T")

RANGES_MAX = 16  # reads of blobs at once
REFRESHED_MAX = 65_536  # packs that we remember to have refreshed
LOOKUP_MAX = 4_096  # ids in one question to the records
WIRE_LEVEL = 1  # of zstd, for chunks that are stored raw


class ChunkStore:
    """Reads and writes chunks. `close` ends its threads."""

    def __init__(
        self,
        blobs: Blobs,
        records: Records,
        keys: LineageKeys,
        limits: StorageLimits | None = None,
        clock: Clock = utc_now,
        allowance: Allowance | None = None,
    ) -> None:
        self.blobs = blobs
        self.records = records
        self.keys = keys
        self.limits = limits or StorageLimits()
        self.clock = clock
        self.allowance = allowance or Allowance(records, self.limits)
        self.ranges = asyncio.Semaphore(RANGES_MAX)
        self.healer: Healer | None = None  # where there is a second store
        self._threads = ThreadPoolExecutor(self.limits.threads, thread_name_prefix="chunks")
        self._refreshed: OrderedDict[str, datetime] = OrderedDict()

    async def close(self) -> None:
        """End the threads; a second call does nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Its result, from one of the store's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    async def missing(self, lineage: str, ids: Sequence[bytes]) -> list[bytes]:
        """Those that the lineage has not, each once, in order. The others stay for at least half of the grace."""
        known = await self.known(lineage, ids)
        return [chunk for chunk in dict.fromkeys(ids) if chunk not in known]

    async def known(self, lineage: str, ids: Collection[bytes]) -> set[bytes]:
        """Those that the lineage has, which from now on stay for at least half of the collector's grace."""
        known: set[bytes] = set()
        unique = list(dict.fromkeys(ids))
        for at in range(0, len(unique), LOOKUP_MAX):
            found = await self.records.find_chunks(lineage, unique[at : at + LOOKUP_MAX])
            known.update(await self._refresh(lineage, found) if found else ())
        return known

    async def _refresh(self, lineage: str, found: dict[bytes, StoredChunk]) -> Iterable[bytes]:
        """Refresh the packs in which chunks were found; those of them that are still there then."""
        now = self.clock()
        due = now - timedelta(seconds=self.limits.grace_s / 2)
        old = {pack for pack in {one.pack for one in found.values()} if self._refreshed.get(pack, due) <= due}
        if not old:
            return found
        await self.records.refresh_packs(old, now)
        left = await self.records.find_chunks(lineage, found)
        for pack in old & {one.pack for one in left.values()}:
            self._refreshed[pack] = now
            self._refreshed.move_to_end(pack)
        while len(self._refreshed) > REFRESHED_MAX:
            self._refreshed.popitem(last=False)
        return left  # one that was moved meanwhile is in a new pack

    def writer(self, lineage: str) -> ChunkWriter:
        """A writer for that lineage, whose record must be there: `async with` it; leaving flushes."""
        return ChunkWriter(self, lineage)

    async def get(self, lineage: str, chunk: bytes) -> bytes:
        """Its data. Corrupt when it is damaged or not there, NotFound when the lineage was shredded."""
        async with aclosing(self.fetch(lineage, [chunk])) as found:
            async for _, data in found:
                return data
        raise Corrupt(f"chunk {chunk.hex()} of {lineage} is not there")

    async def fetch(
        self, lineage: str, ids: Iterable[bytes] | AsyncIterable[bytes]
    ) -> AsyncGenerator[tuple[bytes, bytes]]:
        """(id, data) of each in order; memory stays bounded. Errors as of `get`, at the first such chunk.

        Who stops early closes it (`contextlib.aclosing`).
        """
        reader = ChunkReader(self, lineage, await self.keys.key(lineage), _read)
        async with aclosing(reader.read(ids)) as chunks:
            async for chunk, data in chunks:
                if data is None:
                    raise Corrupt(f"chunk {chunk.hex()} of {lineage} is not there")
                if isinstance(data, Corrupt):
                    raise data
                yield chunk, data

    async def fetch_compressed(
        self, lineage: str, ids: Iterable[bytes] | AsyncIterable[bytes]
    ) -> AsyncGenerator[tuple[bytes, int, bytes]]:
        """(id, size of its data, one zstd frame) of each in order; the frame is empty for one that does not exist.

        Its tag is verified, its contents are for the receiver to hash. Otherwise as `fetch`.
        """
        reader = ChunkReader(self, lineage, await self.keys.key(lineage), _read_compressed)
        async with aclosing(reader.read(ids)) as chunks:
            async for chunk, found in chunks:
                if isinstance(found, Corrupt):
                    raise found
                size, frame = found or (0, b"")
                yield chunk, size, frame

    async def check(
        self, lineage: str, ids: Iterable[bytes] | AsyncIterable[bytes]
    ) -> AsyncGenerator[tuple[bytes, int | Corrupt]]:
        """(id, size of its data, or what is wrong with it) of each in order, all of it read and verified."""
        reader = ChunkReader(self, lineage, await self.keys.key(lineage), _check)
        async with aclosing(reader.read(ids)) as chunks:
            async for chunk, found in chunks:
                yield chunk, Corrupt(f"chunk {chunk.hex()} of {lineage} is not there") if found is None else found


def _read(sealer: Sealer, chunk: StoredChunk, sealed: memoryview) -> bytes:
    return sealer.read(chunk.id, sealed, chunk.bytes)


def _read_compressed(sealer: Sealer, chunk: StoredChunk, sealed: memoryview) -> tuple[int, bytes]:
    compressed = sealer.open(chunk.id, sealed)
    if compressed[:1] == ZSTD:
        return chunk.bytes, compressed[1:]
    data = sealer.read(chunk.id, sealed, chunk.bytes)
    return chunk.bytes, zstandard.ZstdCompressor(level=WIRE_LEVEL).compress(data)


def _check(sealer: Sealer, chunk: StoredChunk, sealed: memoryview) -> int:
    return len(sealer.read(chunk.id, sealed, chunk.bytes))
