"""LocalCounters: who did something how often, in this process alone, bounded in number; the door spends from them.

They also stand in front of the shared ones, and in for them while the database does not answer.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from atoll.domain.rate import Pace, Spent, spent_of

NAMES_MAX = 10_000


class LocalCounters:
    """Two numbers for each name: what is spent, since when."""

    def __init__(self, names_max: int = NAMES_MAX, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._names_max = names_max
        self._found: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def spend(self, name: str, pace: Pace) -> Spent:
        """Take one token; nothing is taken when there is none."""
        now = self._clock()
        spent, since = pace.moved(*self._found.get(name, (0.0, now)), now)
        wait_s = pace.wait_s(spent, since, now)
        if wait_s <= 0:
            spent += 1.0
        self._found[name] = (spent, since)
        self._found.move_to_end(name)
        if len(self._found) > self._names_max:
            # The one untouched for longest has had the most time to recover: it is the least loss.
            self._found.popitem(last=False)
        return spent_of(pace, spent, since, now, wait_s=wait_s)

    async def give_back(self, name: str) -> None:
        """See `Counters`."""
        found = self._found.get(name)
        if found is not None:  # it flows the same whether one is taken off before or after
            self._found[name] = (max(0.0, found[0] - 1.0), found[1])

    def left(self, name: str, pace: Pace) -> int:
        """0 while there is a token, as far as this process knows, else the seconds until there is; takes nothing."""
        found = self._found.get(name)
        if found is None:
            return 0
        now = self._clock()
        wait_s = pace.wait_s(*pace.moved(*found, now), now)
        return max(1, math.ceil(wait_s)) if wait_s > 0 else 0
