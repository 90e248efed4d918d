"""AccountKeys: the keys of an account, as its holder makes, changes, renews and ends them; execbox's API calls it.

Each is narrower than what made it, or as wide, and ends with it: `Capabilities` makes them.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from atoll.domain.errors import Conflict, Forbidden, InvalidInput, NotFound
from atoll.domain.ids import KEY_ID
from atoll.domain.key import ApiKey, Scope
from atoll.domain.principal import Principal
from atoll.domain.quota import AMOUNT_MAX, Overrides, OverridesOf, QuotaChange, QuotaName
from atoll.records.base import Records
from atoll.services.accounts import require
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.capabilities import Capabilities
from atoll.services.identity.users import is_in_person
from atoll.services.key_rules import check_key
from atoll.services.keys import Keys
from atoll.services.new_keys import NewKey
from atoll.services.quotas import Quotas

DAY_S = 86_400.0
# A key's own bounds, by the names that the API gives them.
BOUNDS = {"custom_daily_limit": QuotaName.DAILY, "custom_concurrent_limit": QuotaName.SANDBOXES}


@dataclass(frozen=True, slots=True)
class AccountKey:
    """A key, and its own bounds besides the account's."""

    key: ApiKey
    bounds: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class KeyWishes:
    """What is to hold for a key; names that are not in `given` stay as they are."""

    given: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def bounds(self) -> dict[str, int | None]:
        return {name: self.given[name] for name in BOUNDS if name in self.given}

    @property
    def expires_at(self) -> datetime | None:
        return self.given.get("expires_at")


class AccountKeys:
    """Keys that are the credential's business, as `Capabilities` says."""

    def __init__(
        self, records: Records, keys: Keys, capabilities: Capabilities, quotas: Quotas, *, clock: Clock = utc_now
    ) -> None:
        self._records = records
        self._keys = keys
        self._capabilities = capabilities
        self._quotas = quotas
        self._clock = clock

    async def list(self, principal: Principal) -> builtins.list[AccountKey]:
        """Those that are not revoked, oldest first, the one that asks among them."""
        self._require(principal, Scope.READ)
        found = await self._capabilities.all(principal)
        overrides = await self._records.get_quotas([key.id for key in found])
        return [AccountKey(key, _bounds(overrides.get(key.id))) for key in found]

    async def get(self, principal: Principal, key_id: str) -> AccountKey:
        """NotFound, always the same, for any other than those."""
        self._require(principal, Scope.READ)
        key = await self._keys.as_it_stands(await self._find(principal, key_id))
        return AccountKey(key, _bounds(await self._quotas.overrides(key.id)))

    async def create(self, principal: Principal, name: str, wishes: KeyWishes) -> tuple[NewKey, AccountKey]:
        """A key with the scopes and the plan of the one that asks."""
        self._require(principal, Scope.WRITE)
        bounds = _checked(wishes.bounds)
        made = await self._capabilities.mint(
            principal,
            name,
            description=wishes.given.get("description") or "",
            expires_in_days=self._days(wishes.expires_at),
            quotas={BOUNDS[name]: most for name, most in bounds.items() if most is not None},
        )
        return made, AccountKey(made.key, {name: most for name, most in bounds.items() if most is not None})

    async def change(self, principal: Principal, key_id: str, wishes: KeyWishes) -> AccountKey:
        """InvalidInput for more than what made it has; Forbidden for bounds or the end of the key that asks, and for a
        key that may do more."""
        self._require(principal, Scope.WRITE)
        key = await self._find(principal, key_id)
        given, bounds = wishes.given, _checked(wishes.bounds)
        check_key(name=given.get("name"), description=given.get("description"))
        if key.id == principal.credential and (bounds or "expires_at" in given):
            raise Forbidden("a key does not change its own limits or end: set those of the account")
        if bounds and key.id == key.owner:
            raise Forbidden("the limits of an account's own key are the account's")
        self._check_narrower(principal, key)
        parent = await self._keys.get(key.parent) if key.parent else None
        if "expires_at" in given:
            self._check_end(wishes.expires_at, parent)

        def altered(before: ApiKey) -> ApiKey:
            after = before
            if given.get("name") is not None:
                after = replace(after, name=given["name"])
            if "description" in given:
                after = replace(after, description=given["description"] or "")
            if "expires_at" in given:
                end = wishes.expires_at
                after = replace(after, expires_at=parent.expires_at if end is None and parent is not None else end)
            return after

        changed = await self._keys.change(
            key.id, altered, "key.changed", actor=principal.id, quotas=_change_of(key.id, bounds)
        )
        self._quotas.forget(key.id)
        return AccountKey(changed, _bounds(await self._quotas.overrides(key.id)))

    async def end(self, principal: Principal, key_id: str) -> None:
        """Revoke it. InvalidInput for the account's own key, and for the one that asks."""
        self._require(principal, Scope.WRITE)
        key = await self._find(principal, key_id)
        if key.id in (key.owner, principal.credential):
            raise InvalidInput("the primary key of an account cannot be deleted; rotate it", field="id")
        await self._keys.revoke(key.id, actor=principal.id)

    async def rotate(self, principal: Principal, key_id: str) -> tuple[NewKey, AccountKey]:
        """Another text in place of the one that it has. Forbidden for a key that may do more than the one that asks."""
        self._require(principal, Scope.WRITE)
        key = await self._find(principal, key_id)
        if not key.usable(self._clock()):
            raise Conflict("the key is revoked or has expired")
        self._check_narrower(principal, key)
        made = await self._keys.rotate(key.id, actor=principal.id)
        return made, AccountKey(made.key, _bounds(await self._quotas.overrides(key.id)))

    async def _find(self, principal: Principal, key_id: str) -> ApiKey:
        found = await self._capabilities.find(principal, key_id)
        if found.revoked_at is not None:
            raise NotFound("key not found")
        return found

    def _check_narrower(self, principal: Principal, key: ApiKey) -> None:
        if key.id != principal.credential:
            self._capabilities.check_narrower(principal, key)

    def _days(self, expires_at: datetime | None) -> float | None:
        if expires_at is None:
            return None
        left_s = (expires_at - self._clock()).total_seconds()
        if left_s <= 0:
            raise InvalidInput("expires_at is over already", field="expires_at")
        return left_s / DAY_S

    def _check_end(self, expires_at: datetime | None, parent: ApiKey | None) -> None:
        check_key(expires_in_days=self._days(expires_at))
        bound = None if parent is None else parent.expires_at
        if expires_at is not None and bound is not None and expires_at > bound:
            raise InvalidInput("expires_at is beyond the end of the key that made this one", field="expires_at")

    def _require(self, principal: Principal, scope: Scope) -> None:
        require(principal, scope)
        if not KEY_ID.match(principal.credential) and not is_in_person(principal):
            raise Forbidden("only an API key, or a user who has logged in, has keys")


def _checked(bounds: Mapping[str, int | None]) -> Mapping[str, int | None]:
    for name, most in bounds.items():
        if most is not None and not 1 <= most <= AMOUNT_MAX:
            raise InvalidInput(f"{name} must be at least 1", field=name)
    return bounds


def _change_of(key_id: str, bounds: Mapping[str, int | None]) -> QuotaChange | None:
    if not bounds:
        return None
    wanted = {BOUNDS[name]: most for name, most in bounds.items() if most is not None}
    return QuotaChange(key_id, wanted, frozenset(BOUNDS[name] for name in bounds) - wanted.keys())


def _bounds(overrides: OverridesOf | None) -> dict[str, int]:
    amounts: Overrides = {} if overrides is None else overrides.amounts
    return {name: most for name, quota in BOUNDS.items() if (most := amounts.get(quota)) is not None}
