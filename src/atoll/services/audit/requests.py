"""Events of requests that no change of the records tells of: what was refused or failed, and what was done inside of
sandboxes. The routes hand them in, and they are written in batches, beside the requests.

A flood of refusals costs the records next to nothing: each credential or address has its share, the rest is counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.event import SYSTEM, Event
from atoll.domain.origin import Origin
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()

ANONYMOUS = "anonymous"
QUEUE_ITEMS = 2_000
BATCH_ITEMS = 100  # in one transaction: sandboxes wait behind it
FLUSH_EVERY_S = 0.5
CLOSE_S = 5.0
SHARES_MAX = 10_000
TARGET_CHARS = 128


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Of refusals, for one credential, or one address without any."""

    per_s: float = 1.0
    burst: int = 30


class RequestEvents:
    """Between `start` and `close`; nothing here waits."""

    def __init__(
        self,
        records: Records,
        metrics: Metrics,
        limits: RequestLimits | None = None,
        *,
        clock: Clock = utc_now,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._records = records
        self._metrics = metrics
        self._limits = limits or RequestLimits()
        self._clock = clock
        self._now = now
        self._waiting: deque[Event] = deque()
        self._shares: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> (events left, since when)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._flush_forever(), name="request events")

    async def close(self) -> None:
        """Write what is left; a second call does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._flush()
        except TimeoutError:
            _log.warning("audit.request_events_lost", count=len(self._waiting))

    def done(self, origin: Origin, action: str, operation: str, target: str) -> None:
        """A request did what `operation` does, and nothing else tells of it."""
        if origin.actor is None and not self._spend(f"peer {origin.peer}"):
            self._metrics.audit.requests_dropped(1)
            return
        self._add(origin, action, "ok", target, {"operation": operation})

    def refused(self, origin: Origin, operation: str, target: str, status: int) -> None:
        """A request wanted a change, which `operation` was to make; it ended with that HTTP status."""
        if not self._spend(origin.key_id or f"peer {origin.peer}"):
            self._metrics.audit.requests_dropped(1)
            return
        detail: dict[str, object] = {"operation": operation, "status": status}
        if status >= 500:
            self._add(origin, "request.failed", "failed", target, detail)
        else:
            self._add(origin, "request.refused", "refused", target, detail)

    def _add(self, origin: Origin, action: str, outcome: str, target: str, detail: dict[str, object]) -> None:
        if len(self._waiting) >= QUEUE_ITEMS:
            self._metrics.audit.requests_dropped(1)
            return
        self._waiting.append(
            Event(
                action,
                _clean(target),
                origin.actor or SYSTEM,
                origin.actor or ANONYMOUS,
                outcome,
                origin.request_id,
                detail,
                self._clock(),
                origin.key_id,
                origin.peer,
            )
        )

    def _spend(self, name: str) -> bool:
        now = self._now()
        left, since = self._shares.pop(name, (float(self._limits.burst), now))
        left = min(float(self._limits.burst), left + (now - since) * self._limits.per_s)
        enough = left >= 1
        self._shares[name] = left - enough, now
        if len(self._shares) > SHARES_MAX:
            self._shares.popitem(last=False)
        return enough

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self._flush()

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_ITEMS, len(self._waiting)))]
            try:
                await self._records.add_events(batch)
                self._metrics.audit.requests_recorded(len(batch))
            except asyncio.CancelledError:
                self._waiting.extendleft(reversed(batch))
                raise
            except AtollError as error:
                if error.retryable:
                    self._waiting.extendleft(reversed(batch))
                    return
                self._lost(batch)
            except Exception:
                self._lost(batch)

    def _lost(self, batch: list[Event]) -> None:
        self._metrics.audit.requests_dropped(len(batch))
        _log.warning("audit.request_events_lost", count=len(batch), exc_info=True)


def _clean(text: str) -> str:
    """The client's own words, as far as every store can hold them."""
    return text[:TARGET_CHARS].replace("\0", "\ufffd").encode(errors="replace").decode()
