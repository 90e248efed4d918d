"""Token buckets for many callers at once, bounded in number.

The door spends from them by key, address and prefix.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

MAX_BUCKETS = 10_000


class TokenBuckets:
    """A bucket for each name: `rate_per_s` tokens flow in, up to `burst`."""

    def __init__(
        self, rate_per_s: float, burst: int, limit: int = MAX_BUCKETS, clock: Callable[[], float] = monotonic
    ) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._clock = clock
        self._limit = limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> (tokens, when)

    def spend(self, name: str, tokens: float = 1.0) -> int:
        """Take tokens: 0 when there were enough, else the seconds (at least 1) until there will be."""
        now = self._clock()
        have, since = self._buckets.get(name, (float(self.burst), now))
        have = min(self.burst, have + (now - since) * self.rate_per_s)
        enough = have >= tokens
        self._buckets[name] = (have - tokens if enough else have, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._limit:
            # The one untouched for longest has had the most time to fill again: it is the least loss.
            self._buckets.popitem(last=False)
        return 0 if enough else self._wait_s(tokens - have)

    def left(self, name: str) -> int:
        """0 while the bucket has a token, else the seconds until it has; takes nothing."""
        bucket = self._buckets.get(name)
        if bucket is None:
            return 0
        have = min(self.burst, bucket[0] + (self._clock() - bucket[1]) * self.rate_per_s)
        return 0 if have >= 1 else self._wait_s(1 - have)

    def _wait_s(self, missing: float) -> int:
        return max(1, math.ceil(missing / self.rate_per_s)) if self.rate_per_s > 0 else 3600
