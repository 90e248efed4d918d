"""How a stream waits for a server that went away: longer each time, never for ever; streams use it."""

from __future__ import annotations

import random
import time

from atoll.domain.errors import AtollError
from atoll.sdk._async_io import async_sleep

RECONNECT_S = 60.0  # how long to look for a server that went away
_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 2.0


class AsyncRetry:
    """Pauses between attempts, within `limit_s` seconds from the first failure on."""

    def __init__(self, limit_s: float = RECONNECT_S) -> None:
        self._limit_s = limit_s
        self._until: float | None = None
        self._pause_s = _PAUSE_FIRST_S

    async def after(self, error: AtollError) -> None:
        """Wait a little; raises `error` when another attempt would not help, or there were enough."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._limit_s
        if not error.retryable or now + self._pause_s > self._until:
            raise error
        await async_sleep(self._pause_s * random.uniform(0.5, 1.0))  # not all clients at once
        self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)

    def reset(self) -> None:
        """It worked."""
        self._until = None
        self._pause_s = _PAUSE_FIRST_S
