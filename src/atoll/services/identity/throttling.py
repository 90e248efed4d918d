"""Throttling: how often one may try to log in; the logins service asks it before it looks at a password.

A stranger who guesses uses up what strangers have. Who has logged in from an address before goes on from there.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from atoll.domain.errors import RateLimited

NAMES_MAX = 10_000
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
    """Counts in this process; several servers give as many times as much."""

    def __init__(self, limits: TryLimits | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        limits = limits or TryLimits()
        self._pairs = _Tries(limits.pair_burst, limits.pair_every_s, monotonic)
        self._addresses = _Tries(limits.address_burst, limits.address_every_s, monotonic)
        self._usernames = _Tries(limits.username_burst, limits.username_every_s, monotonic)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()  # where each username has succeeded

    def begin(self, username: str, address: str) -> None:
        """Count an attempt as failed until `succeed` takes that back. RateLimited with the wait."""
        self._begin(self._counts(username, address))

    def begin_unnamed(self, address: str) -> None:
        """Likewise, for an attempt that names nobody: only its address counts."""
        self._begin([(self._addresses, address)])

    def succeed_unnamed(self, address: str) -> None:
        self._addresses.give_back(address)

    def begin_registration(self, address: str) -> None:
        """Likewise, for who becomes somebody: one address makes only so many, and nothing is taken back."""
        self._begin([(self._pairs, address), (self._addresses, address)])

    def _begin(self, counts: list[tuple[_Tries, str]]) -> None:
        if wait_s := max(tries.wait_s(name) for tries, name in counts):
            raise RateLimited("too many failed logins: try again later", retry_after_s=wait_s)
        for tries, name in counts:
            tries.take(name)

    def succeed(self, username: str, address: str) -> None:
        """It was no guess."""
        for tries, name in self._counts(username, address):
            tries.give_back(name)
        self._known[username, address] = None
        self._known.move_to_end((username, address))
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _counts(self, username: str, address: str) -> list[tuple[_Tries, str]]:
        counts = [(self._pairs, f"{username} {address}"), (self._addresses, address)]
        if (username, address) not in self._known:
            counts.append((self._usernames, username))
        return counts


class _Tries:
    """What is left for each name: `burst`, filled up by one every `every_s`."""

    def __init__(self, burst: int, every_s: float, monotonic: Callable[[], float]) -> None:
        self._burst = burst
        self._every_s = every_s
        self._monotonic = monotonic
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> (left, when)

    def wait_s(self, name: str) -> int:
        """0 when there is one, else the seconds until there is."""
        left = self._now(name)
        return 0 if left >= 1 else max(1, math.ceil((1 - left) * self._every_s))

    def take(self, name: str) -> None:
        self._put(name, self._now(name) - 1)

    def give_back(self, name: str) -> None:
        self._put(name, min(self._burst, self._now(name) + 1))

    def _now(self, name: str) -> float:
        left, since = self._left.get(name, (float(self._burst), 0.0))
        return min(self._burst, left + (self._monotonic() - since) / self._every_s)

    def _put(self, name: str, left: float) -> None:
        self._left[name] = (left, self._monotonic())
        self._left.move_to_end(name)
        if len(self._left) > NAMES_MAX:
            self._left.popitem(last=False)  # the one untouched for longest has had the most time to fill up
