"""Healing: a pack that the first store has lost, or has damaged, is taken from the second one and put back.

The chunk reader asks for it, so that reading goes on and verifying mends. A copy is looked through before it is used.
What both stores lack is lost, until somebody who reads of it finds it whole again.
"""

from __future__ import annotations

import asyncio

import structlog

from atoll.blobs.base import Blobs
from atoll.domain.errors import AtollError, Corrupt, NotFound
from atoll.records.base import Records
from atoll.services.workspaces.storage.packs import pack_key, read_index
from atoll.services.workspaces.storage.sealing import Sealer
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()

HEAL_S = 60.0  # for one pack, with the wait for its turn
FAILED_S = 60.0  # that a pack is not asked for again after that failed
FAILED_MAX = 10_000  # packs of which that is remembered
LISTED_MAX = 1_000_000
AT_ONCE = 2  # packs, which are whole in memory meanwhile


class Healer:
    """Puts packs of the second store into the first. `lost` are keys of packs that are whole in neither, as far as
    reading has shown; the job of the second store tells of them."""

    def __init__(
        self, first: Blobs, second: Blobs, records: Records, metrics: Metrics, lost: set[str] | None = None
    ) -> None:
        self.lost = set[str]() if lost is None else lost
        self._first = first
        self._second = second
        self._records = records
        self._metrics = metrics
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._healing: dict[str, asyncio.Task[bool]] = {}  # by key: who asks meanwhile waits for the same
        self._failed: dict[str, float] = {}  # by key: when, by the loop's clock, the oldest first

    async def heal(self, lineage: str, pack: str, key: bytes) -> bool:
        """Whether the first store has it whole now; `key` is the lineage's. Waits HEAL_S at most.

        What fails is logged, never raised, and not tried again for FAILED_S.
        """
        name = pack_key(lineage, pack)
        if asyncio.get_running_loop().time() < self._failed.get(name, -FAILED_S) + FAILED_S:
            return False
        task = self._healing.get(name)
        if task is None:
            task = self._healing[name] = asyncio.create_task(self._heal(name, lineage, pack, key), name=f"heal {name}")
            task.add_done_callback(lambda _: self._healing.pop(name, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._healing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _heal(self, name: str, lineage: str, pack: str, key: bytes) -> bool:
        try:
            async with asyncio.timeout(HEAL_S), self._gate:
                if not await self._is_whole(name, lineage, pack, key):
                    data = await self._second.get(name)
                    await asyncio.to_thread(_check, data, lineage, pack, key)
                    await self._first.put(name, data)
                    self._metrics.blob_healed()
                    _log.warning("blobs.healed", key=name, bytes=len(data))
        except (AtollError, TimeoutError) as error:
            why = error.message if isinstance(error, AtollError) else f"it took more than {HEAL_S:g} s"
            _log.warning("blobs.not_healed", key=name, error=why)
            self._remember(name)
            if isinstance(error, (NotFound, Corrupt)) and await self._is_named(lineage, pack):
                self.lost.add(name)
            return False
        self._failed.pop(name, None)
        self.lost.discard(name)
        return True

    async def _is_whole(self, name: str, lineage: str, pack: str, key: bytes) -> bool:
        """Whether the first store has it whole, put back by hand or by somebody else."""
        try:
            await asyncio.to_thread(_check, await self._first.get(name), lineage, pack, key)
        except (NotFound, Corrupt):
            return False
        return True

    async def _is_named(self, lineage: str, pack: str) -> bool:
        """Whether the records know it: what was collected meanwhile is not lost."""
        return any(one.id == pack for one in await self._records.list_packs(lineage, limit=LISTED_MAX))

    def _remember(self, name: str) -> None:
        self._failed.pop(name, None)
        self._failed[name] = asyncio.get_running_loop().time()
        if len(self._failed) > FAILED_MAX:
            del self._failed[next(iter(self._failed))]


def _check(data: bytes, lineage: str, pack: str, key: bytes) -> None:
    """Corrupt unless every chunk that the pack says it holds is whole."""
    sealer, view = Sealer(key, lineage), memoryview(data)
    for chunk in read_index(data, pack, sealer):
        if chunk.offset + chunk.stored_bytes > len(data):
            raise Corrupt(f"pack {pack} is cut short")
        sealer.read(chunk.id, view[chunk.offset : chunk.offset + chunk.stored_bytes], chunk.bytes)
