"""Places: how many calls of models there may be at once, of one task and of all together; model calls take them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from atoll.services.models.limits import ModelLimits
from atoll.services.models.refusals import Because, CallRefused
from atoll.telemetry.model_metrics import ModelMetrics


class Places:
    """One server's. CallRefused where none becomes free in time."""

    def __init__(self, limits: ModelLimits, metrics: ModelMetrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._of_all = asyncio.Semaphore(limits.calls_max)
        self._of_task: dict[str, asyncio.Semaphore] = {}
        self._waiting = Counter[str]()  # calls of a task, under way or waiting for a place

    @asynccontextmanager
    async def of_task(self, task: str) -> AsyncGenerator[None]:
        """A place among the calls of that task."""
        places = self._of_task.setdefault(task, asyncio.Semaphore(self._limits.calls_per_task))
        self._waiting[task] += 1
        try:
            async with self._taken(places):
                yield
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task], self._of_task[task]

    @asynccontextmanager
    async def of_all(self) -> AsyncGenerator[None]:
        """A place among those that ask a provider."""
        async with self._taken(self._of_all):
            yield

    @asynccontextmanager
    async def _taken(self, places: asyncio.Semaphore) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(self._limits.queue_s):
                await places.acquire()
        except TimeoutError:
            self._metrics.refused("busy")
            raise CallRefused(Because.BUSY, "too many calls of models at once", retry_after_s=5) from None
        try:
            yield
        finally:
            places.release()
