"""KeyUses: collects the uses of keys and writes them in batches, off every request's path; the keys service owns it."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from atoll.domain.errors import AtollError
from atoll.records.base import KeyUse, Records

FLUSH_EVERY_S = 1.0
BATCH_ITEMS = 200  # in one transaction: sandboxes wait behind it
CLOSE_S = 5.0

_log = structlog.get_logger()


class KeyUses:
    """A queue with a bound. While the store is down it fills up; then the newest are dropped and counted."""

    def __init__(self, records: Records, items_max: int) -> None:
        self._records = records
        self._items_max = items_max
        self._waiting: deque[KeyUse] = deque()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        self._reported = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._flush_forever(), name="key uses")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._flush()
        except TimeoutError:
            _log.warning("key_uses.lost", count=len(self._waiting))

    def add(self, use: KeyUse) -> None:
        if len(self._waiting) >= self._items_max:
            self.dropped += 1
        else:
            self._waiting.append(use)

    async def flush(self) -> None:
        """Write what waits now; what the store does not take stays."""
        await self._flush()

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self._flush()
            if self.dropped > self._reported:
                _log.warning("key_uses.dropped", count=self.dropped - self._reported)
                self._reported = self.dropped

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_ITEMS, len(self._waiting)))]
            try:
                await self._records.log_key_use(batch)
            except AtollError as error:
                if error.retryable:
                    self._waiting.extendleft(reversed(batch))
                    return
                self.dropped += len(batch)
                _log.warning("key_uses.refused", count=len(batch), exc_info=True)
            except asyncio.CancelledError:
                self._waiting.extendleft(reversed(batch))
                raise
            except Exception:
                self.dropped += len(batch)
                _log.exception("key_uses.failed", count=len(batch))
