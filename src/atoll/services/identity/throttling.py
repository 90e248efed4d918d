"""Throttling: how often one may try to log in; the logins service asks it before it looks at a password.

A stranger who guesses uses up what strangers have. Who has logged in from an address before goes on from there.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from atoll.domain.errors import RateLimited
from atoll.domain.rate import Rate
from atoll.services.rates.counters import Counters
from atoll.services.rates.local_counters import LocalCounters

NAMES_MAX = 30_000  # that are counted at a time
KNOWN_MAX = 10_000


@dataclass(frozen=True, slots=True)
class TryLimits:
    """Attempts that fail: so many at once, and one more every so many seconds."""

    pair_burst: int = 10  # of one username from one address
    pair_every_s: float = 30.0
    address_burst: int = 50  # from one address
    address_every_s: float = 5.0
    username_burst: int = 100  # of one username, from addresses where it never succeeded
    username_every_s: float = 30.0


class LoginThrottle:
    """Counts with `counters`: with shared ones, several servers give no more than one would. Where somebody has
    succeeded is known to the server that saw it."""

    def __init__(self, limits: TryLimits | None = None, counters: Counters | None = None) -> None:
        limits = limits or TryLimits()
        self._counters = counters or LocalCounters(NAMES_MAX)
        self._pair = Rate(1 / limits.pair_every_s, limits.pair_burst)
        self._address = Rate(1 / limits.address_every_s, limits.address_burst)
        self._username = Rate(1 / limits.username_every_s, limits.username_burst)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()  # where each username has succeeded

    async def begin(self, username: str, address: str) -> None:
        """Count an attempt as failed until `succeed` takes that back. RateLimited with the wait."""
        await self._begin(self._counts(username, address))

    async def fail_unnamed(self, address: str) -> None:
        """Count an attempt that named nobody and failed. RateLimited when there were too many; whoever logs in with a
        password there is not concerned."""
        await self._begin([(f"unnamed {address}", self._address)])

    def knows(self, username: str, address: str) -> bool:
        """Whether that username has logged in from there before."""
        return (username, address) in self._known

    async def begin_registration(self, address: str) -> None:
        """Likewise, for who becomes somebody: one address makes only so many, and nothing is taken back."""
        await self._begin([(f"registration {address}", self._pair), self._of_address(address)])

    async def succeed(self, username: str, address: str) -> None:
        """It was no guess."""
        await self._give_back(self._counts(username, address))
        self._known[username, address] = None
        self._known.move_to_end((username, address))
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    async def _begin(self, counts: list[tuple[str, Rate]]) -> None:
        wait_s = max(self._counters.left(name, pace) for name, pace in counts)
        taken: list[tuple[str, Rate]] = []
        for name, pace in counts if not wait_s else []:
            wait_s = (await self._counters.spend(name, pace)).wait_s
            if wait_s:
                await self._give_back(taken)  # what is refused costs nothing
                break
            taken.append((name, pace))
        if wait_s:
            raise RateLimited("too many failed logins: try again later", retry_after_s=wait_s)

    async def _give_back(self, counts: list[tuple[str, Rate]]) -> None:
        for name, _ in counts:
            await self._counters.give_back(name)

    def _counts(self, username: str, address: str) -> list[tuple[str, Rate]]:
        # What somebody typed as a username may be their password: no store is to hold it.
        hashed = hashlib.sha256(username.encode(errors="surrogatepass")).hexdigest()[:32]
        pair = (f"login {hashed} {address}", self._pair)
        if self.knows(username, address):
            return [pair]
        return [pair, self._of_address(address), (f"login {hashed}", self._username)]

    def _of_address(self, address: str) -> tuple[str, Rate]:
        return f"login address {address}", self._address
