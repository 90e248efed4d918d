"""Writing behind: what need not be stored before its request is answered waits here and is written in batches.

The use log of keys and the events of requests are written so; what a crash takes with it is what waited.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from atoll.domain.errors import AtollError

T = TypeVar("T")
CLOSE_S = 5.0
_log = structlog.get_logger()


class WriteBehind(Generic[T]):
    """A queue with a bound. While the store is down it fills up; then the newest are dropped, and `lost` is told."""

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[T]], Awaitable[None]],
        lost: Callable[[int], None],
        *,
        items_max: int,
        batch_items: int,
        every_s: float,
    ) -> None:
        """`batch_items` go into one transaction; `name` is that of its task and in the log."""
        self._name = name
        self._write = write
        self._lost = lost
        self._items_max = items_max
        self._batch_items = batch_items
        self._every_s = every_s
        self._waiting: deque[T] = deque()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._closing.clear()
        self._task = asyncio.create_task(self._flush_forever(), name=self._name)

    async def close(self) -> None:
        """Write what is left, for a moment at most; a second call does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        self._closing.set()  # a write under way is let be: cut short it may be stored, and would be written again
        _, hangs = await asyncio.wait([task], timeout=CLOSE_S)
        if hangs:
            task.cancel()
            await asyncio.wait([task])
            _log.warning("write_behind.lost", what=self._name, count=len(self._waiting))

    def add(self, item: T) -> None:
        """Never waits."""
        if len(self._waiting) >= self._items_max:
            self._lost(1)
        else:
            self._waiting.append(item)

    async def flush(self) -> None:
        """Write what waits now; what the store cannot take for the moment stays."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._batch_items, len(self._waiting)))]
            try:
                await self._write(batch)
            except asyncio.CancelledError:
                self._waiting.extendleft(reversed(batch))
                raise
            except Exception as error:
                if isinstance(error, AtollError) and error.retryable:
                    self._waiting.extendleft(reversed(batch))
                    return
                self._lost(len(batch))
                _log.warning("write_behind.refused", what=self._name, count=len(batch), exc_info=True)

    async def _flush_forever(self) -> None:
        closing = False
        while not closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    closing = await self._closing.wait()
            await self.flush()
