"""Events of requests that no change of the records tells of: what was refused or failed, and what was done inside of
sandboxes. The routes hand them in, and they are written in batches, beside the requests.

A flood of refusals costs the records next to nothing: each credential or address has its share, the rest is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from atoll.domain.event import SYSTEM, Event
from atoll.domain.origin import Origin
from atoll.domain.rate import Rate
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.write_behind import WriteBehind
from atoll.telemetry.metrics import Metrics

ANONYMOUS = "anonymous"
QUEUE_ITEMS = 2_000
BATCH_ITEMS = 100  # in one transaction: sandboxes wait behind it
FLUSH_EVERY_S = 0.5
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
        self._queue = WriteBehind(
            "request events",
            self._write,
            metrics.audit.requests_dropped,
            items_max=QUEUE_ITEMS,
            batch_items=BATCH_ITEMS,
            every_s=FLUSH_EVERY_S,
        )
        self._rate = Rate(self._limits.per_s, self._limits.burst)
        self._shares: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> (spent, since when)

    def start(self) -> None:
        self._queue.start()

    async def close(self) -> None:
        """Write what is left; a second call does nothing."""
        await self._queue.close()

    async def flush(self) -> None:
        """Write what waits now, where the store takes it."""
        await self._queue.flush()

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
        self._queue.add(
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
        spent, since = self._rate.moved(*self._shares.pop(name, (0.0, now)), now)
        enough = self._rate.wait_s(spent, since, now) <= 0
        self._shares[name] = spent + enough, since
        if len(self._shares) > SHARES_MAX:
            self._shares.popitem(last=False)
        return enough

    async def _write(self, batch: Sequence[Event]) -> None:
        await self._records.add_events(batch)
        self._metrics.audit.requests_recorded(len(batch))


def _clean(text: str) -> str:
    """The client's own words, as far as every store can hold them."""
    return text[:TARGET_CHARS].replace("\0", "\ufffd").encode(errors="replace").decode()
