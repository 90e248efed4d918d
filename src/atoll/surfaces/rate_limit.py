"""Rate limits of requests: what is counted by whom, on which surface, and the headers that tell of it.

The door calls it; counting itself is `services/rates`, in this process or shared with other servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from atoll.domain.errors import RateLimited
from atoll.domain.principal import Principal
from atoll.domain.rate import Pace, Rate, Spent, Window
from atoll.services.rates.counters import Counters
from atoll.services.rates.local_counters import LocalCounters
from atoll.telemetry.trace import Trace

TOO_MANY_REFUSED = "too many requests without a valid key"
CountersOf = Callable[[int], Counters]  # of so many names at most


@dataclass(frozen=True, slots=True)
class SurfaceRates:
    """What holds on one surface, or for one class of its routes, besides what holds everywhere."""

    key: Rate | None = None  # of one key, in place of the general one
    address: Window | None = None  # of one address


# Without settings, by the names that these give them.
SURFACES: Mapping[str, SurfaceRates] = {
    "testbase": SurfaceRates(address=Window(100, 900.0)),
    "testbase_execute": SurfaceRates(address=Window(30, 900.0)),
    "signup": SurfaceRates(address=Window(5, 3600.0)),
    "objects": SurfaceRates(key=Rate(100.0, 400)),
    "previews": SurfaceRates(key=Rate(500.0, 2_000)),
    **dict.fromkeys(("execbox", "terminal_platform", "computesdk"), SurfaceRates()),
}


@dataclass(frozen=True, slots=True)
class RateSettings:
    """A burst is what may come at once, a rate is what may go on for ever."""

    enabled: bool
    key: Rate
    address: Rate
    refused: Rate
    addresses: int
    surfaces: Mapping[str, SurfaceRates]


class SurfaceLimited(RateLimited):
    """Too many requests."""

    def __init__(self, message: str, *, retry_after_s: int, rates: str) -> None:
        self.rates = rates  # the surface, or class of routes, whose limit it is
        super().__init__(message, retry_after_s=retry_after_s)


class RateLimits:
    """Everything that bounds how often one may ask."""

    def __init__(self, settings: RateSettings, counters_of: CountersOf = LocalCounters) -> None:
        self._settings = settings
        self._by_key = counters_of(settings.addresses)
        self._by_address = counters_of(settings.addresses)
        self._by_surface = counters_of(settings.addresses)
        # Refusals count by the credential's prefix too: many addresses may try the rest of one key.
        self._refused = counters_of(2 * settings.addresses)
        self._looks = LocalCounters(2 * settings.addresses)

    async def spend(self, trace: Trace, network: str, principal: Principal, classes: Sequence[str]) -> None:
        """One request of somebody known. RateLimited with the wait."""
        if not self._settings.enabled:
            return
        name, pace = self._key_pace(principal, classes)
        spent = [
            await self._of_address(trace, network),
            _checked(trace, await self._by_key.spend(name, pace), "requests with this key"),
        ]
        spent += await self._windows(trace, network, classes)
        trace.headers = headers_of(min(spent, key=lambda one: one.remaining))

    async def spend_unknown(self, trace: Trace, network: str, classes: Sequence[str], *, is_here: bool = False) -> None:
        """One request of anybody; from this machine only what is counted on the surface itself."""
        if not self._settings.enabled:
            return
        spent = [] if is_here else [await self._of_address(trace, network)]
        spent += await self._windows(trace, network, classes)
        if spent:
            trace.headers = headers_of(min(spent, key=lambda one: one.remaining))

    async def check_guesser(self, names: Sequence[str]) -> None:
        """Before a look at the records. When one of them was refused too often there are still as many looks as an
        address has requests: who has a valid credential is not kept out by a neighbour. RateLimited after those."""
        if not self._settings.enabled:
            return
        if not any(self._refused.left(f"refused {name}", self._settings.refused) for name in names):
            return
        wait_s = max([(await self._looks.spend(name, self._settings.address)).wait_s for name in names])
        if wait_s:
            raise RateLimited(TOO_MANY_REFUSED, retry_after_s=wait_s)

    async def refuse(self, names: Sequence[str]) -> None:
        """Count one refusal; RateLimited once there are too many."""
        pace = self._settings.refused
        wait_s = max([(await self._refused.spend(f"refused {name}", pace)).wait_s for name in names])
        if wait_s and self._settings.enabled:
            raise RateLimited(TOO_MANY_REFUSED, retry_after_s=wait_s)

    async def count_refused(self, trace: Trace, network: str, classes: Sequence[str]) -> None:
        """What was refused counts on the surface like anything else."""
        if self._settings.enabled:
            await self._windows(trace, network, classes)

    def _key_pace(self, principal: Principal, classes: Sequence[str]) -> tuple[str, Rate]:
        credential = principal.rated_as or principal.credential
        if principal.rate is not None:
            return f"key {credential}", principal.rate
        for one in classes:
            rates = self._settings.surfaces.get(one)
            if rates is not None and rates.key is not None:
                return f"{one} key {credential}", rates.key
        return f"key {credential}", self._settings.key

    async def _of_address(self, trace: Trace, network: str) -> Spent:
        spent = await self._by_address.spend(f"address {network}", self._settings.address)
        return _checked(trace, spent, "requests from this address")

    async def _windows(self, trace: Trace, network: str, classes: Sequence[str]) -> list[Spent]:
        found: list[Spent] = []
        for one in classes:
            rates = self._settings.surfaces.get(one)
            if rates is None or rates.address is None:
                continue
            spent = await self._by_surface.spend(f"{one} address {network}", rates.address)
            if spent.wait_s:
                trace.headers = headers_of(spent)
                message = f"too many requests from this address: at most {rates.address}"
                raise SurfaceLimited(message, retry_after_s=spent.wait_s, rates=one)
            found.append(spent)
        return found


def headers_of(spent: Spent) -> list[tuple[bytes, bytes]]:
    """The RateLimit fields of the IETF's draft (its sixth), which most clients know."""
    pace: Pace = spent.pace
    window_s = max(1, round(pace.window_s))
    return [
        (b"ratelimit-policy", b"%d;w=%d" % (pace.limit, window_s)),
        (b"ratelimit-limit", b"%d" % pace.limit),
        (b"ratelimit-remaining", b"%d" % spent.remaining),
        (b"ratelimit-reset", b"%d" % spent.reset_s),
    ]


def _checked(trace: Trace, spent: Spent, what: str) -> Spent:
    if spent.wait_s:
        trace.headers = headers_of(spent)
        raise RateLimited(f"too many {what}: at most {spent.pace}", retry_after_s=spent.wait_s)
    return spent
