"""Counters: what the door, and whoever else bounds how often something is done, counts with."""

from __future__ import annotations

from typing import Protocol

from atoll.domain.rate import Pace, Spent


class Counters(Protocol):
    """Counts by name. Local ones count in this process, shared ones for all servers on one database."""

    async def spend(self, name: str, pace: Pace) -> Spent:
        """Take one token; nothing is taken when there is none. Never raises because a store is down."""
        ...

    async def give_back(self, name: str) -> None:
        """One token that was taken counts as not taken. Never raises because a store is down."""
        ...

    def left(self, name: str, pace: Pace) -> int:
        """0 while there is a token, as far as this process knows, else the seconds until there is; takes nothing."""
        ...
