"""Charging: the loop that charges compute and storage; the application runs it."""

from __future__ import annotations

import asyncio

import structlog

from atoll.domain.errors import AtollError
from atoll.services.charging.compute import ComputeCharges
from atoll.services.charging.storage import StorageCharges

_log = structlog.get_logger()

EVERY_S = 20.0


class Charging:
    """Started after the sandboxes were adopted, closed before the records are."""

    def __init__(self, compute: ComputeCharges, storage: StorageCharges, *, every_s: float = EVERY_S) -> None:
        self._compute = compute
        self._storage = storage
        self._every_s = every_s
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._compute.start()
        self._loop = asyncio.create_task(self._run(), name="charging")

    async def close(self) -> None:
        """With a last pass, for those that ended just now; a second call does nothing."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        self._loop = None
        await self.run()

    async def run(self) -> None:
        """One pass."""
        for one in (self._compute, self._storage):
            try:
                await one.run()
            except AtollError as error:
                _log.warning("charging.cut", error=error.message)
            except Exception:
                _log.exception("charging.cut")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.run()
