"""Background: work that must go on when the one who asked for it goes away; the sandbox services start it here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from atoll.domain.errors import AtollError
from atoll.telemetry import spans

T = TypeVar("T")
_log = structlog.get_logger()


class Background:
    """Tasks that this service started; none is lost and none outlives `close`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start it; a fault is logged, whether or not anybody awaits it."""
        task = asyncio.create_task(work, name=name, context=spans.apart())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Its result; the work is carried to its end even when the caller is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._done)
            raise

    async def close(self, within_s: float) -> None:
        """Give what runs `within_s` to end, then cancel it."""
        tasks = {task for task in self._tasks if task is not asyncio.current_task()}
        if tasks and within_s > 0:
            _, tasks = await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, AtollError):
            _log.info("background.refused", task=task.get_name(), error=fault.message)
        elif fault is not None:
            _log.error("background.failed", task=task.get_name(), exc_info=fault)
