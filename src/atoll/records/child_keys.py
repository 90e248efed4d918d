"""The part of the records contract about keys that other keys made; `Records` includes it. See `Records`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.quota import Overrides


class ChildKeyRecords(ABC):
    """Keys with a `parent`, which bounds their number and what they may spend."""

    @abstractmethod
    async def add_child_key(
        self, key: ApiKey, event: Event, *, siblings_max: int, quotas: Overrides | None = None
    ) -> None:
        """Insert a key that has a parent, with quotas of its own, which the event tells. Conflict when the id or the
        hash exists, or the parent is gone or revoked.

        QuotaExceeded when the parent has `siblings_max` children that are neither revoked nor expired at
        `key.created_at`; and when the parent has a budget, and all that it ever gave its children, ended ones too, is
        with this one's more than that. Counted in the same atomic step: no two calls give the same away.
        """

    @abstractmethod
    async def list_child_keys(self, parent: str) -> list[ApiKey]:
        """Those that it made itself, oldest first, revoked ones too."""
