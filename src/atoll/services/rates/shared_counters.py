"""SharedCounters: who did something how often, over all servers on one database.

A fast rate is taken from the database some tokens at a time, so that not every request waits for it; app.py makes
them where the database is PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.rate import Pace, Rate, Spent, spent_of
from atoll.records.base import Records
from atoll.services.rates.local_counters import NAMES_MAX, LocalCounters

LEASE_OF_S = 0.1  # a lease is what flows in within this time, so an idle server holds that much of a rate back
LEASE_MAX = 20
LEASE_S = 1.0  # then what is left of one is forgotten
ANSWER_S = 1.0  # for the database; after that this process counts alone
ALONE_S = 5.0  # for so long, then the database is asked again
PRUNE_EVERY = 4096  # asks
KEPT_S = 2 * 86_400.0  # the longest window is shorter

_log = structlog.get_logger("atoll.rates")


@dataclass(slots=True)
class _Lease:
    """Tokens that the database counts as spent and this process has yet to give out."""

    tokens: int
    until: float
    spent: float  # in the database, these tokens among it
    since: float  # of the window, by this process's clock
    refused_until: float = 0.0


class _Asking:
    """Those who wait for the store's word about one name: one of them asks, for all."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0


class SharedCounters:
    """Never more in all than the pace, but for a lease that outlives its window by at most LEASE_S; at most a lease
    less for each other server that holds one. Windows and rates below 20 a second have leases of one token: they are
    exact."""

    def __init__(self, records: Records, names_max: int = NAMES_MAX, clock: Callable[[], float] = monotonic) -> None:
        self._records = records
        self._names_max = names_max
        self._clock = clock
        self._alone = LocalCounters(names_max, clock)
        self._alone_until = 0.0
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._asks = 0
        self._asking: dict[str, _Asking] = {}
        self._pruning: asyncio.Task[None] | None = None

    async def spend(self, name: str, pace: Pace) -> Spent:
        """See `Counters`."""
        known = await self._known(name, pace)
        if known is not None:
            return known
        asking = self._asking.setdefault(name, _Asking())
        asking.waiting += 1
        try:
            async with asking.turn:
                # whoever was before has asked for all who waited
                return await self._known(name, pace) or await self._ask(name, pace, asking.waiting)
        finally:
            asking.waiting -= 1
            if not asking.waiting:
                self._asking.pop(name, None)

    async def _known(self, name: str, pace: Pace) -> Spent | None:
        """What can be said without the store; None: it has to be asked."""
        now = self._clock()
        lease = self._leases.get(name)
        if lease is not None:
            if lease.tokens and now < lease.until:
                lease.tokens -= 1
                return self._told(pace, lease, now)
            if now < lease.refused_until:
                return self._told(pace, lease, now, lease.refused_until - now)
        return await self._alone.spend(name, pace) if now < self._alone_until else None

    async def give_back(self, name: str) -> None:
        """See `Counters`. Another server that was refused meanwhile learns of it when its wait is over."""
        if self._clock() < self._alone_until:
            return await self._alone.give_back(name)
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._records.give_back_token(name)
        except (AtollError, TimeoutError) as error:
            _log.warning("rates.not_given_back", error=type(error).__name__)
        lease = self._leases.get(name)
        if lease is not None:
            lease.refused_until = 0.0
        return None

    def left(self, name: str, pace: Pace) -> int:
        """See `Counters`."""
        now = self._clock()
        lease = self._leases.get(name)
        if lease is not None and now < lease.refused_until and not (lease.tokens and now < lease.until):
            return self._told(pace, lease, now, lease.refused_until - now).wait_s
        return self._alone.left(name, pace) if now < self._alone_until else 0

    async def _ask(self, name: str, pace: Pace, waiting: int) -> Spent:
        wanted = min(max(_lease_of(pace), waiting), pace.limit)
        try:
            async with asyncio.timeout(ANSWER_S):
                taken = await self._records.take_tokens(name, pace, wanted)
        except (AtollError, TimeoutError) as error:
            self._alone_until = self._clock() + ALONE_S
            _log.warning("rates.alone", seconds=ALONE_S, error=type(error).__name__)
            return await self._alone.spend(name, pace)
        self._asks += 1
        if self._asks % PRUNE_EVERY == 0:
            self._prune()
        now = self._clock()
        lease = _Lease(taken.tokens, now + LEASE_S, taken.spent, now - taken.age_s)
        self._remember(name, lease)
        if not taken.tokens:
            wait_s = max(pace.wait_s(taken.spent, lease.since, now), 0.001)
            lease.refused_until = now + wait_s
            return self._told(pace, lease, now, wait_s)
        lease.tokens -= 1
        return self._told(pace, lease, now)

    def _prune(self) -> None:
        if self._pruning is None or self._pruning.done():
            self._pruning = asyncio.create_task(self._forget(), name="prune rates")

    async def _forget(self) -> None:
        with suppress(AtollError):  # another time
            await self._records.prune_rates(KEPT_S)

    def _remember(self, name: str, lease: _Lease) -> None:
        self._leases[name] = lease
        self._leases.move_to_end(name)
        if len(self._leases) > self._names_max:
            self._leases.popitem(last=False)

    def _told(self, pace: Pace, lease: _Lease, now: float, wait_s: float = 0.0) -> Spent:
        return spent_of(pace, lease.spent - lease.tokens, lease.since, now, wait_s=wait_s)


def _lease_of(pace: Pace) -> int:
    if not isinstance(pace, Rate):
        return 1
    return max(1, min(LEASE_MAX, int(pace.per_s * LEASE_OF_S), pace.burst // 4))
