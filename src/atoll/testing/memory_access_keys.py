"""The access keys' part of MemoryRecords, in a dictionary."""

from __future__ import annotations

from typing import Any

from atoll.domain.access_key import AccessKey
from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.records.access_keys import AccessKeyRecords


class MemoryAccessKeys(AccessKeyRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _check: Any  # what the rest of MemoryRecords has
    _log: Any
    _keys: Any

    def __init__(self) -> None:
        super().__init__()
        self._access_keys: dict[str, AccessKey] = {}

    async def add_access_key(self, access: AccessKey, event: Event, *, quota: int) -> None:
        self._check()
        if access.key not in self._keys:
            raise NotFound(f"key {access.key} does not exist")
        kept = sum(one.key == access.key for one in self._access_keys.values())
        if kept >= quota:
            raise QuotaExceeded(f"access key limit reached ({kept}/{quota})")
        if access.id in self._access_keys:
            raise Conflict(f"an access key {access.id} exists already")
        self._access_keys[access.id] = access
        self._log(event)

    async def get_access_key(self, access_id: str) -> AccessKey | None:
        self._check()
        return self._access_keys.get(access_id)

    async def list_access_keys(self, *, key: str | None = None, owner: str | None = None) -> list[AccessKey]:
        self._check()
        found = [one for one in self._access_keys.values() if key in (None, one.key) and owner in (None, one.owner)]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def delete_access_key(self, access_id: str, event: Event) -> None:
        self._check()
        if self._access_keys.pop(access_id, None) is None:
            raise NotFound(f"access key {access_id} does not exist")
        self._log(event)

    def _forget_access_keys(self, key_id: str) -> None:
        self._access_keys = {name: one for name, one in self._access_keys.items() if one.key != key_id}
