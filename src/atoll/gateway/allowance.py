"""Allowance: how many bytes a sandbox may still send through the gateway before its quota has to be asked again.

One for each sandbox, whose connections share it; the egress gateway asks it before it passes anything on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from atoll.domain.errors import AtollError, QuotaExceeded
from atoll.services.lives import Live
from atoll.telemetry.gateway_metrics import GatewayMetrics

_log = structlog.get_logger()

FRESH_S = 2.0  # others spend of the same quota

# bytes that the sandbox may send before asking again, None where nothing bounds them; QuotaExceeded when none are left
Left = Callable[[Live], Awaitable[int | None]]


async def unbounded(_live: Live) -> int | None:
    """Without quotas."""
    return None


class EgressSpent(ConnectionError):
    """The owner's egress quota is used up."""


class Allowance:
    """Of one sandbox. A piece goes while anything is left, so that at most one goes beyond."""

    def __init__(
        self, live: Live, left: Left, metrics: GatewayMetrics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._live = live
        self._ask = left
        self._metrics = metrics
        self._monotonic = monotonic
        self._left: int | None = 0
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """EgressSpent when nothing may go."""
        await self.sent(0)

    async def sent(self, size: int) -> None:
        """Count what is about to go. EgressSpent when it may not; then it does not count."""
        async with self._lock:
            if self._monotonic() >= self._until or (self._left is not None and self._left <= 0):
                await self._look()
            if self._left is not None:
                self._left -= size
            self._live.gateway_bytes += size

    async def _look(self) -> None:
        try:
            self._left = await self._ask(self._live)
        except QuotaExceeded as error:
            self._metrics.refused("quota")
            raise EgressSpent(error.message) from None
        except AtollError as error:  # what goes meanwhile is counted when the records are back
            _log.info("egress.quota_unknown", sandbox_id=self._live.sandbox.id, error=error.message)
            self._left = None
        self._until = self._monotonic() + FRESH_S
