"""KeyAdmin: everybody's keys, for who administers the server; the Testbase surface's `/admin/keys` calls it.

Each method asks first whether the principal is the administrator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Unpack

from atoll.domain.account import KeyStats
from atoll.domain.errors import NotFound
from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.domain.rate import Rate
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.admin_key import AdminKey
from atoll.services.key_rules import check_key
from atoll.services.keys import Keys
from atoll.services.new_keys import KeyTerms, NewKey

ADMIN_PREFIX = "tb_"


class NoKey(NotFound):
    """API key not found"""


class NoChange(NotFound):
    """API key not found or no changes made"""


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """What to change of a key; None: leave it."""

    name: str | None = None
    description: str | None = None
    scopes: frozenset[Scope] | None = None
    metadata: Mapping[str, Any] | None = None
    rate: Rate | None = None

    def applied(self, key: ApiKey) -> ApiKey:
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return replace(key, **{name: value for name, value in given.items() if value is not None})


class KeyAdmin:
    """Every key of the server."""

    def __init__(self, keys: Keys, records: Records, admin: AdminKey, clock: Clock = utc_now) -> None:
        self._keys = keys
        self._records = records
        self._admin = admin
        self._clock = clock

    def require(self, principal: Principal) -> None:
        """AdminUnset, or AdminRequired for anybody but the administrator: before a look at what was sent."""
        self._admin.require(principal)

    async def create(self, principal: Principal, name: str, **terms: Unpack[KeyTerms]) -> NewKey:
        """A key that belongs to nobody else: what is made with it is its own. InvalidInput names the wrong field."""
        self._admin.require(principal)
        terms.setdefault("prefix", ADMIN_PREFIX)
        return await self._keys.create(name, actor=principal.id, **terms)

    async def list(
        self, principal: Principal, *, limit: int, offset: int = 0, include_inactive: bool = False
    ) -> tuple[list[ApiKey], int]:
        """A page, newest first, and how many there are in all."""
        self._admin.require(principal)
        usable_at = None if include_inactive else self._clock()
        found, total = await self._records.page_keys(limit=limit, offset=offset, usable_at=usable_at)
        return [await self._keys.as_it_stands(key) for key in found], total

    async def get(self, principal: Principal, key_id: str) -> ApiKey:
        """A key, dead or alive; NoKey."""
        self._admin.require(principal)
        key = await self._keys.get(key_id)
        if key is None:
            raise NoKey
        return await self._keys.as_it_stands(key)

    async def usage(self, principal: Principal, key_id: str, since: datetime | None = None) -> KeyStats:
        """What the use log has of it."""
        self._admin.require(principal)
        await self._keys.write_uses()
        return await self._records.key_stats(key_id, since)

    async def change(self, principal: Principal, key_id: str, changes: KeyChanges) -> ApiKey:
        """NoChange when there is no such key, or nothing to change."""
        self._admin.require(principal)
        check_key(
            name=changes.name,
            scopes=changes.scopes,
            description=changes.description,
            metadata=changes.metadata,
            rate=changes.rate,
        )
        if changes == KeyChanges() or await self._keys.get(key_id) is None:
            raise NoChange
        return await self._keys.change(key_id, changes.applied, "key.changed", actor=principal.id)

    async def revoke(self, principal: Principal, key_id: str) -> None:
        """End it; it stays in the records. Again is no error."""
        await self.get(principal, key_id)
        await self._keys.revoke(key_id, actor=principal.id)

    async def delete(self, principal: Principal, key_id: str) -> None:
        """End and forget it, with what it was used for; its events stay, and so does what it owns."""
        await self.get(principal, key_id)
        await self._keys.delete(key_id, actor=principal.id)
