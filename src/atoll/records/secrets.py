"""The records contract's part on secrets: sealed values under names, each change in one transaction with its event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from atoll.domain.event import Event
from atoll.domain.secret import Secret


class SecretRecords(ABC):
    """A part of `Records`; what holds for all of its methods stands there."""

    @abstractmethod
    async def add_secret(self, secret: Secret, event: Event, *, quota: int | None = None) -> None:
        """Insert. Conflict when its owner has one of that name, or the id exists; QuotaExceeded when its owner has
        `quota` already: N+k concurrent calls at quota N insert exactly N."""

    @abstractmethod
    async def swap_secret(self, secret: Secret, event: Event | None) -> Secret:
        """As `swap_sandbox`. `event` None is for a key that another vault, or another master key, has wrapped anew."""

    @abstractmethod
    async def get_secret(self, secret_id: str) -> Secret | None: ...

    @abstractmethod
    async def find_secret(self, owner: str, name: str) -> Secret | None: ...

    @abstractmethod
    async def list_secrets(
        self,
        *,
        owners: Collection[str] | None = None,
        within: Collection[str] | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> list[Secret]:
        """By name, then id, behind the name and id of `after`; of those owners, or (None) of all. `within` are the ids
        of secrets, or of owners, that none is outside of."""

    @abstractmethod
    async def delete_secret(self, secret: Secret, event: Event) -> None:
        """Delete it with its value, if the stored version still is that one. StaleVersion, NotFound."""
