"""How often something may be done: a rate with a burst, or so many in a window; both count what was spent since when.

The counters of services/rates keep two numbers for each name, and these classes say what they mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NEVER_S = 3600.0  # what is told to wait where nothing ever flows in


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket of `burst` tokens into which `per_s` flow: what may come at once, and what may go on for ever."""

    per_s: float
    burst: int

    @property
    def limit(self) -> int:
        return self.burst

    @property
    def window_s(self) -> float:
        """In which an empty bucket is full again."""
        return self.burst / self.per_s if self.per_s > 0 else NEVER_S

    def moved(self, spent: float, since: float, now: float) -> tuple[float, float]:
        """What is spent, and since when, as it is at `now`."""
        return max(0.0, spent - max(0.0, now - since) * self.per_s), now

    def wait_s(self, spent: float, since: float, now: float, tokens: float = 1.0) -> float:
        """Seconds until so many tokens can be had; not above 0: now. `spent` and `since` are those of `moved`."""
        missing = spent + tokens - self.burst
        if missing <= 0:
            return 0.0
        return missing / self.per_s if self.per_s > 0 else NEVER_S

    def reset_s(self, spent: float, since: float, now: float) -> float:
        """Seconds until everything can be had."""
        return spent / self.per_s if self.per_s > 0 else NEVER_S

    def __str__(self) -> str:
        return f"{self.per_s:g} per second, {self.burst} at once"


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests in `window_s` from the first on; then a new window begins with the next."""

    requests: int
    window_s: float

    @property
    def limit(self) -> int:
        return self.requests

    def moved(self, spent: float, since: float, now: float) -> tuple[float, float]:
        """See `Rate.moved`."""
        return (0.0, now) if now >= since + self.window_s else (spent, since)

    def wait_s(self, spent: float, since: float, now: float, tokens: float = 1.0) -> float:
        """See `Rate.wait_s`."""
        return 0.0 if spent + tokens <= self.requests else since + self.window_s - now

    def reset_s(self, spent: float, since: float, now: float) -> float:
        """See `Rate.reset_s`."""
        return since + self.window_s - now

    def __str__(self) -> str:
        return f"{self.requests} in {self.window_s:g} s"


Pace = Rate | Window


@dataclass(frozen=True, slots=True)
class Spent:
    """What spending came to: `wait_s` is 0 when there was enough, else whole seconds until there will be."""

    wait_s: int
    pace: Pace
    remaining: int
    reset_s: int


def spent_of(pace: Pace, spent: float, since: float, now: float, *, wait_s: float = 0.0) -> Spent:
    """As a caller is told of it."""
    remaining = max(0, int(pace.limit - spent))
    wait = max(1, math.ceil(wait_s)) if wait_s > 0 else 0
    return Spent(wait, pace, remaining, max(0, math.ceil(pace.reset_s(spent, since, now))))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a store gave: so many tokens; and what is spent, of a count that began, or was last moved, `age_s` ago."""

    tokens: int
    spent: float
    age_s: float
