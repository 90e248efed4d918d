"""Memberships: which groups a principal belongs to, as it was at most a moment ago; Identity asks on every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from atoll.domain.group import Role
from atoll.records.base import Records
from atoll.services.remembered import Remembered


class Memberships:
    """`cache_s` is how long another server on the same database may still take somebody for a member who left."""

    def __init__(
        self, records: Records, cache_s: float = 2.0, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._roles: Remembered[Mapping[str, Role]] = Remembered(self._look, cache_s, monotonic)

    async def of(self, principal_id: str) -> Mapping[str, Role]:
        """The roles, by group."""
        return await self._roles.get(principal_id)

    def forget(self, principal_id: str) -> None:
        """Look again the next time."""
        self._roles.forget(principal_id)

    async def _look(self, principal_id: str) -> Mapping[str, Role]:
        return {one.group.id: one.role for one in await self._records.list_memberships(principal_id)}
