"""What goes on by itself while the sandboxes service runs: ends are heard of, records and runtime are reconciled."""

from __future__ import annotations

import asyncio
import contextlib

from atoll.services.access import Access
from atoll.services.metering import Metering
from atoll.services.reconciler import Reconciler, quietly
from atoll.services.suspensions import Suspensions
from atoll.services.watching import Watching

PRUNE_EVERY = 60  # reconciler passes


class SandboxUpkeep:
    """Sandboxes starts and closes it."""

    def __init__(
        self,
        access: Access,
        watching: Watching,
        reconciler: Reconciler,
        suspensions: Suspensions,
        metering: Metering,
    ) -> None:
        self._access = access
        self._watching = watching
        self._reconciler = reconciler
        self._suspensions = suspensions
        self._metering = metering
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Reconcile once, and adopt what runs, before it goes on on a timer."""
        self._loops.append(asyncio.create_task(self._watching.follow_events(), name="runtime events"))
        await self._reconciler.run()
        await self._suspensions.start()
        self._loops.append(asyncio.create_task(self._reconcile_on_timer(), name="reconciler"))

    async def close(self) -> None:
        """A second call does nothing."""
        for task in self._loops:
            task.cancel()
        for task in self._loops:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._loops.clear()

    async def _reconcile_on_timer(self) -> None:
        passes = 0
        while True:
            if passes % PRUNE_EVERY == 0:
                await quietly(self._reconciler.prune(), "prune")
            await asyncio.sleep(self._access.limits.reconcile_every_s)
            passes += 1
            await quietly(self._reconciler.run(), "pass")
            await quietly(self._reconciler.flush_usage(), "usage")
            await quietly(self._metering.run(), "metering")
