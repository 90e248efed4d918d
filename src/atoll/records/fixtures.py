"""The records contract's part on fixtures: what clients of the sidekick API asked to keep in sandboxes."""

from __future__ import annotations

from abc import ABC, abstractmethod

from atoll.domain.event import Event
from atoll.domain.fixture import Fixture, FixtureKind


class FixtureRecords(ABC):
    """A part of `Records`; what holds for all of its methods stands there."""

    @abstractmethod
    async def add_fixture(self, fixture: Fixture, event: Event, *, quota: int) -> None:
        """Insert. NotFound when there is no such sandbox; Conflict when the sandbox has one of that kind and name;
        QuotaExceeded when it has `quota` of that kind: N+k concurrent calls at quota N insert exactly N."""

    @abstractmethod
    async def get_fixture(self, fixture_id: str) -> Fixture | None: ...

    @abstractmethod
    async def list_fixtures(
        self, *, sandbox: str | None = None, kind: FixtureKind | None = None, limit: int = 100_000
    ) -> list[Fixture]:
        """Oldest first: all, those of one sandbox, or of one kind."""

    @abstractmethod
    async def swap_fixture(self, fixture: Fixture, event: Event | None) -> Fixture:
        """Store spec, state and `updated_at` if the stored version is the one that was read; returns it with the next
        version. StaleVersion, NotFound. Without an event it is bookkeeping, which a power cut may undo."""

    @abstractmethod
    async def delete_fixture(self, fixture_id: str, event: Event) -> None:
        """NotFound, and no event, when it is gone already."""

    @abstractmethod
    async def drop_fixtures(self, sandbox: str) -> int:
        """Forget all of a sandbox that has ended, which its own events tell; how many there were."""
