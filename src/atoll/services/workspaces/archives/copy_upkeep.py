"""CopyUpkeep: copies in a folder of the operator's are kept equal to the records, in a task of its own.

Folder copies and snapshot files each have one: what changes is copied soon, and everything is compared now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from atoll.domain.errors import AtollError

_log = structlog.get_logger()
RECONCILE_S = 3_600.0


class CopyUpkeep:
    """`reconcile` compares everything, `work_off` copies what has changed; `unchecked` names a comparison that failed
    in the log. Changes within `pause_s` come in one burst."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[], Awaitable[None]],
        work_off: Callable[[], Awaitable[None]],
        *,
        unchecked: str,
        pause_s: float = 0.0,
    ) -> None:
        self._name = name
        self._reconcile = reconcile
        self._work_off = work_off
        self._unchecked = unchecked
        self._pause_s = pause_s
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=self._name)

    async def close(self) -> None:
        """A copy that is being made is given up. A second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def wake(self) -> None:
        """There is something to work off."""
        self._woken.set()

    async def _follow(self) -> None:
        while True:
            try:
                await self._reconcile()
            except (AtollError, OSError) as error:
                _log.warning(self._unchecked, error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_S):
                    while True:
                        await self._woken.wait()
                        await asyncio.sleep(self._pause_s)
                        self._woken.clear()
                        await self._work_off()
