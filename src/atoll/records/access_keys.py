"""The records contract's part on access keys: pairs that sign for an API key, and go with it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from atoll.domain.access_key import AccessKey
from atoll.domain.event import Event


class AccessKeyRecords(ABC):
    """A part of `Records`; what holds for all of its methods stands there. `delete_key` deletes those of the key."""

    @abstractmethod
    async def add_access_key(self, access: AccessKey, event: Event, *, quota: int) -> None:
        """Insert. NotFound when there is no such API key; Conflict when the id exists; QuotaExceeded when the API key
        has `quota` already: N+k concurrent calls at quota N insert exactly N."""

    @abstractmethod
    async def get_access_key(self, access_id: str) -> AccessKey | None: ...

    @abstractmethod
    async def list_access_keys(self, *, key: str | None = None, owner: str | None = None) -> list[AccessKey]:
        """Oldest first: all, those of one API key, or of one owner's."""

    @abstractmethod
    async def delete_access_key(self, access_id: str, event: Event) -> None:
        """Forget it with its secret. NotFound, and no event, when it is gone already."""
