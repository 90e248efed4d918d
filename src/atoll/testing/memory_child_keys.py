"""The part of MemoryRecords about keys that other keys made."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from atoll.domain.errors import Conflict
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.key_bounds import check_child
from atoll.domain.quota import Overrides, QuotaChange
from atoll.domain.quota_rules import with_quotas
from atoll.records.child_keys import ChildKeyRecords


class MemoryChildKeys(ChildKeyRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    _keys: dict[str, ApiKey]

    async def add_child_key(
        self, key: ApiKey, event: Event, *, siblings_max: int, quotas: Overrides | None = None
    ) -> None:
        self._check()
        parent = None if key.parent is None else self._keys.get(key.parent)
        if parent is None or parent.revoked_at is not None:
            raise Conflict(f"key {key.parent} has ended")
        children = [one for one in self._keys.values() if one.parent == key.parent]
        siblings = sum(one.usable(key.created_at) for one in children)
        given = sum(one.budget_micro_usd or 0 for one in children)
        check_child(key, siblings, siblings_max, parent.budget_micro_usd, given)
        if key.id in self._keys or any(known.hash == key.hash for known in self._keys.values()):
            raise Conflict(f"key {key.id} exists")
        self._keys[key.id] = key
        self._log(self._with_quotas(event, key, quotas))

    async def list_child_keys(self, parent: str) -> list[ApiKey]:
        self._check()
        return sorted(
            (one for one in self._keys.values() if one.parent == parent), key=lambda one: (one.created_at, one.id)
        )

    def _end_children(self, parent: str, event: Event) -> None:
        for one in sorted(self._keys.values(), key=lambda one: one.id):
            if one.parent == parent and one.revoked_at is None:
                self._keys[one.id] = replace(one, revoked_at=event.at, version=one.version + 1)
                self._log(replace(event, target=one.id))

    def _with_quotas(self, event: Event, key: ApiKey, quotas: Overrides | None) -> Event:
        whole: Any = self
        return with_quotas(event, whole._change_overrides(QuotaChange(key.id, quotas))) if quotas else event

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the records are down."""

    @abstractmethod
    def _log(self, event: Event | None) -> None:
        """Keep the event."""
