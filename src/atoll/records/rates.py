"""The part of the records contract about counters that servers share; `Records` includes it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from atoll.domain.rate import Pace, Taken


class RateRecords(ABC):
    """What was spent of a pace, by name, by the database's clock. No mutations of a tenant's: no events."""

    @abstractmethod
    async def take_tokens(self, name: str, pace: Pace, tokens: int = 1) -> Taken:
        """Take `tokens`, else one, else none, in one atomic step: however many ask at once, no more than the pace
        allows is given."""

    @abstractmethod
    async def give_back_token(self, name: str) -> None:
        """One that was taken counts as not taken."""

    @abstractmethod
    async def prune_rates(self, unused_s: float) -> None:
        """Forget what was not asked for within so many seconds."""
