"""The part of the records in memory about counters; `MemoryRecords` includes it."""

from __future__ import annotations

from abc import abstractmethod
from time import monotonic

from atoll.domain.rate import Pace, Taken
from atoll.records.rates import RateRecords


class MemoryRates(RateRecords):
    """See `RateRecords`."""

    def __init__(self) -> None:
        super().__init__()
        self._rates: dict[str, tuple[float, float]] = {}

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the store plays dead."""

    async def take_tokens(self, name: str, pace: Pace, tokens: int = 1) -> Taken:
        self._check()
        now = monotonic()
        spent, since = pace.moved(*self._rates.get(name, (0.0, now)), now)
        taken = next((some for some in (tokens, 1) if pace.wait_s(spent, since, now, some) <= 0), 0)
        self._rates[name] = (spent + taken, since)
        return Taken(taken, spent + taken, now - since)

    async def give_back_token(self, name: str) -> None:
        self._check()
        if name in self._rates:
            spent, since = self._rates[name]
            self._rates[name] = (max(0.0, spent - 1.0), since)

    async def prune_rates(self, unused_s: float) -> None:
        self._check()
        kept = monotonic() - unused_s
        self._rates = {name: found for name, found in self._rates.items() if found[1] >= kept}
