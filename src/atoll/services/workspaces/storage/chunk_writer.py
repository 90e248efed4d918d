"""Chunk writer: takes chunks in any number and has them sealed, packed, stored and recorded in the background.

Chunks wait in batches; threads seal several batches at once; one task puts what they sealed into packs, in the order in
which it was given, and has one pack stored while the next one fills. `add` waits when too much is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import zstandard

from atoll.domain import crash
from atoll.domain.errors import Internal, InvalidInput, QuotaExceeded
from atoll.domain.tree import CHUNK_BYTES, chunk_id
from atoll.domain.workspace import Pack
from atoll.services.workspaces.storage.packs import PackBuilder, pack_key
from atoll.services.workspaces.storage.sealing import LEVEL, ZSTD, Sealer, compress, inflate

if TYPE_CHECKING:
    from atoll.services.workspaces.storage.chunks import ChunkStore


class Given(NamedTuple):
    """A chunk as somebody gave it."""

    id: bytes
    data: bytes
    frame_of: int | None  # `data` is a zstd frame, of that many bytes, by somebody whom we do not trust


class Sealed(NamedTuple):
    id: bytes
    sealed: bytes
    size: int


class ChunkWriter:
    """Writes chunks of one lineage; made by `ChunkStore.writer`, used by one task at a time.

    What is added is readable once `flush` has returned. After an error (Unavailable, StorageFull, InvalidInput of a
    compressed chunk that is not its id's, NotFound when the lineage was shredded) each call raises it again: make a new
    writer.
    """

    def __init__(self, store: ChunkStore, lineage: str) -> None:
        self.stored_bytes = 0  # of packs that are stored and recorded
        self.stored_chunks = 0
        self.lineage = lineage
        self.store = store
        self._limits = store.limits
        self._key, self._owner = b"", ""
        self._batch: list[Given] = []
        self._batch_bytes = 0
        self._under_way: set[bytes] = set()  # given, and not recorded yet
        self._order: asyncio.Queue[asyncio.Task[list[Sealed]] | asyncio.Event] = asyncio.Queue(self._limits.batches)
        self._sealing: set[asyncio.Task[list[Sealed]]] = set()
        self._packer: asyncio.Task[None] | None = None
        self._storing: asyncio.Task[None] | None = None
        self._recording: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._key, self._owner = await self.store.keys.data_key(self.lineage)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self._end()

    async def add(self, chunk: bytes, data: bytes) -> None:
        """Store `data` under its id; one that the lineage has, or that was added before, is left out."""
        if chunk not in self._under_way:
            await self._take(Given(chunk, data, None))

    async def add_many(self, data: Sequence[bytes]) -> list[bytes]:
        """Add several whose ids are not known yet; the ids. A thread hashes them: give it a MiB or so at once."""
        ids = await self.store.in_thread(_ids, data)
        for chunk, one in zip(ids, data, strict=True):
            await self.add(chunk, one)
        return ids

    async def add_compressed(self, chunk: bytes, size: int, frame: bytes) -> None:
        """As `add`, for one zstd frame from outside. That it holds `size` bytes of that id is verified before it is
        stored: InvalidInput, here or from a later call, names one that does not."""
        if not 0 < size <= CHUNK_BYTES:
            raise InvalidInput(f"chunk {chunk.hex()}: a chunk has 1 to {CHUNK_BYTES} bytes", field="chunks")
        if chunk not in self._under_way:
            await self._take(Given(chunk, frame, size))

    async def flush(self) -> None:
        """Wait until everything added so far is stored and recorded."""
        await self._submit()
        if self._packer is not None:
            done = asyncio.Event()
            await self._put(done)
            await self._until(asyncio.create_task(done.wait()))

    async def _take(self, given: Given) -> None:
        self._under_way.add(given.id)
        self._batch.append(given)
        self._batch_bytes += len(given.data)
        if self._batch_bytes >= self._limits.batch_bytes or len(self._batch) >= self._limits.batch_chunks:
            await self._submit()

    async def _submit(self) -> None:
        self._raise_failure()
        if not self._batch:
            return
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if self._packer is None:
            self._packer = asyncio.create_task(self._pack(), name=f"pack chunks of {self.lineage}")
        sealing = asyncio.create_task(self._seal(batch))
        self._sealing.add(sealing)
        sealing.add_done_callback(self._sealed)
        await self._put(sealing)

    async def _put(self, item: asyncio.Task[list[Sealed]] | asyncio.Event) -> None:
        try:
            self._order.put_nowait(item)
        except asyncio.QueueFull:
            await self._until(asyncio.create_task(self._order.put(item)))

    async def _until(self, step: asyncio.Task[object]) -> None:
        """Wait for the step, or for the packer to fail."""
        assert self._packer is not None
        try:
            await asyncio.wait({step, self._packer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            step.cancel()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._packer is not None and self._packer.done():
            if not self._packer.cancelled() and (fault := self._packer.exception()) is not None:
                raise fault
            raise Internal("this chunk writer has ended")

    async def _seal(self, batch: list[Given]) -> list[Sealed]:
        known = await self.store.known(self.lineage, [given.id for given in batch])
        self._under_way.difference_update(known)
        new = [given for given in batch if given.id not in known]
        if not new:
            return []
        return await self.store.in_thread(_seal, self._key, self.lineage, new)

    def _sealed(self, sealing: asyncio.Task[list[Sealed]]) -> None:
        self._sealing.discard(sealing)
        if not sealing.cancelled():
            sealing.exception()  # the packer raises it; here it counts as looked at when the packer has ended before

    async def _pack(self) -> None:
        pack = PackBuilder(self.lineage)
        while True:
            item = await self._order.get()
            if isinstance(item, asyncio.Event):
                if pack.chunks:
                    await self._store_pack(pack)
                    pack = PackBuilder(self.lineage)
                if self._storing is not None:
                    await self._storing
                item.set()
                continue
            for one in await item:
                pack.add(*one)
                if pack.bytes >= self._limits.pack_bytes:
                    await self._store_pack(pack)
                    pack = PackBuilder(self.lineage)

    async def _store_pack(self, pack: PackBuilder) -> None:
        """Begin to store it, after the one before it."""
        if self._storing is not None:
            await self._storing
        self._storing = asyncio.create_task(self._store(pack), name=f"store {pack.id}")

    async def _store(self, pack: PackBuilder) -> None:
        use = await self.store.allowance.check(self._owner, pack.bytes)
        data = await self.store.in_thread(pack.finish, Sealer(self._key, self.lineage))
        await self.store.blobs.put(pack_key(self.lineage, pack.id), data)
        crash.point("workspaces.pack.stored")
        # To the end, whatever becomes of this writer: bytes that are stored and not recorded count for nobody.
        self._recording = asyncio.create_task(self._record(pack, use.most), name=f"record {pack.id}")
        await asyncio.shield(self._recording)
        self.stored_bytes += pack.bytes
        self.stored_chunks += len(pack.chunks)
        self._under_way.difference_update([chunk.id for chunk in pack.chunks])

    async def _record(self, pack: PackBuilder, quota: int | None) -> None:
        stored = Pack(pack.id, self.lineage, pack.bytes, self.store.clock())
        try:
            await self.store.records.add_pack(stored, pack.chunks, quota=quota)
        except QuotaExceeded:  # other writers of the owner's were faster
            await self.store.blobs.delete(pack_key(self.lineage, pack.id))
            use = await self.store.allowance.use(self._owner)
            raise await self.store.allowance.full(self._owner, use, pack.bytes) from None

    async def _end(self) -> None:
        under_way = (self._packer, self._storing, *self._sealing)
        tasks: list[asyncio.Task[Any]] = [task for task in under_way if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        self._batch.clear()
        self._under_way.clear()
        if self._recording is not None:
            await asyncio.wait({self._recording})


def _ids(data: Sequence[bytes]) -> list[bytes]:
    return [chunk_id(one) for one in data]


def _seal(key: bytes, lineage: str, batch: list[Given]) -> list[Sealed]:
    sealer = Sealer(key, lineage)
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    sealed: list[Sealed] = []
    for chunk, data, frame_of in batch:
        if frame_of is None:
            size, compressed = len(data), compress(data, compressor)
        else:
            size, compressed = frame_of, _verified(chunk, data, frame_of, compressor)
        sealed.append(Sealed(chunk, sealer.seal(chunk, compressed), size))
    return sealed


def _verified(chunk: bytes, frame: bytes, size: int, compressor: zstandard.ZstdCompressor) -> bytes:
    try:
        data = inflate(frame, size)
    except InvalidInput as error:
        raise InvalidInput(f"chunk {chunk.hex()}: {error.message}", field="chunks") from None
    if len(data) != size or chunk_id(data) != chunk:
        raise InvalidInput(f"chunk {chunk.hex()}: its data is not what its id says", field="chunks")
    return ZSTD + frame if len(frame) < size else compress(data, compressor)
