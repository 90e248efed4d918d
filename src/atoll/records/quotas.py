"""The records contract of quotas: what is set for whom, and what is counted by the hour.

Services call it; `atoll.testing.quotas_conformance` holds every store to these docstrings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.quota import Bound, OverridesOf, QuotaChange, QuotaName, QuotaUse, SandboxUse, Spend


class QuotaRecords(ABC):
    """Overrides of quotas, counters of the last hour, and what subjects have of sandboxes."""

    @abstractmethod
    async def get_quotas(self, subjects: Collection[str]) -> dict[str, OverridesOf]:
        """What is set for each of them; those for whom nothing is are left out."""

    @abstractmethod
    async def list_quotas(self, *, limit: int = 1000) -> list[OverridesOf]:
        """Everybody's, by subject."""

    @abstractmethod
    async def put_quotas(self, overrides: OverridesOf, event: Event) -> None:
        """Set all of them in place of what was set; empty ones take that away. NotFound when the subject is a group or
        a user who is gone."""

    @abstractmethod
    async def change_quotas(self, change: QuotaChange, event: Event) -> None:
        """Set what it names and leave the others, in one atomic step: of two concurrent changes none is lost. The
        event's detail gets `quotas`, what is set then. NotFound as `put_quotas`."""

    @abstractmethod
    async def sandbox_use(self, bound: Bound) -> SandboxUse:
        """What the bound's subject has now; `made` since its moment, 0 without one. A key has what those keys have too
        that come from it."""

    @abstractmethod
    async def spend(self, spends: Sequence[Spend], now: datetime) -> list[QuotaUse]:
        """Count them, all or none, and say what is then used in the hour before `now`.

        QuotaExceeded when one would pass its limit, or has reached it and asks for nothing. Looking and counting are
        one atomic step: N+k concurrent spends of 1 at limit N count exactly N.
        """

    @abstractmethod
    async def spent(self, subjects: Collection[str], now: datetime) -> dict[tuple[str, QuotaName], int]:
        """What each of them used in the hour before `now`, in the units that are counted."""

    @abstractmethod
    async def prune_spent(self, now: datetime) -> int:
        """Delete the counters that no hour before `now` needs; returns how many."""

    @abstractmethod
    async def add_event(self, event: Event) -> None:
        """Store an event that no change of a record goes with."""
