"""Accounts: what the holder of keys sees of their own plan, use and limits; execbox's `/v1/account` calls it.

An account is an owner: a user, or a key that belongs to nobody. Every method takes the Principal first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from atoll.domain import account_limits
from atoll.domain.account import Account
from atoll.domain.errors import Conflict, Forbidden, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID
from atoll.domain.key import ApiKey, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.quota import QuotaName, QuotaUse
from atoll.records.base import Records
from atoll.services.account_usage import Used, by_day, by_hour, first_moment
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.users import speaks_for_account
from atoll.services.quotas import UNBOUNDED, Quotas

SANDBOXES_MAX = 20_000  # that an estimate looks at
STANDARD = "standard"  # the tier of those without a plan
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as its holder sees it."""

    id: str
    tier: str
    email: str | None
    key: ApiKey | None  # the one that asks, where it is one


@dataclass(frozen=True, slots=True)
class History:
    """What was used lately."""

    hours: dict[datetime, Used]
    days: dict[date, Used]

    @property
    def cost_cents(self) -> int:
        return sum(day.cost_cents for day in self.days.values())


class Accounts:
    """One's own account, and nobody else's."""

    def __init__(self, records: Records, quotas: Quotas, *, clock: Clock = utc_now) -> None:
        self._records = records
        self._quotas = quotas
        self._clock = clock

    async def describe(self, principal: Principal) -> AccountView:
        """Needs `read`, as all that only looks."""
        require(principal, Scope.READ)
        key = await self._records.get_key(principal.credential) if KEY_ID.match(principal.credential) else None
        account = await self._records.get_account(principal.id)
        email = None if account is None else account.email
        if email is None and account is not None:
            email = account.limits.get(account_limits.EMAIL)
        return AccountView(principal.id, tier_of(principal), email, key)

    async def usage(self, principal: Principal) -> dict[QuotaName, QuotaUse]:
        """What is used of each quota."""
        require(principal, Scope.READ)
        return {one.name: one for one in await self._quotas.usage(principal)}

    async def history(self, principal: Principal, days: int) -> History:
        """What was used in the last days, and in the last 24 hours. Sandboxes that were pruned are not in it."""
        require(principal, Scope.READ)
        now = self._clock()
        since = first_moment(now, days)
        found = await self._records.list_sandboxes_since(principal.id, since, limit=SANDBOXES_MAX)
        return History(by_hour(found, now), by_day(found, now, days))

    async def limits(self, principal: Principal) -> Mapping[str, Any]:
        """What its holder has set."""
        require(principal, Scope.READ)
        account = await self._records.get_account(principal.id)
        return {} if account is None else account.limits

    async def set_limits(self, principal: Principal, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change what is given; None takes away. They hold besides those of the plan, never in their place. Needs
        `write`, and `read` for what stands then, in person or with the account's own key: they bound the others.
        InvalidInput names the field."""
        require(principal, Scope.WRITE)
        require(principal, Scope.READ)
        if not speaks_for_account(principal):
            raise Forbidden("the limits of an account are set by its user in person, or with its own key")
        for _ in range(ATTEMPTS):
            account = await self._records.get_account(principal.id)
            before: Mapping[str, Any] = {} if account is None else account.limits
            after = account_limits.changed(before, given)
            if after == before:
                return before
            now = self._clock()
            told = {"fields": sorted(given)}
            event = Event("account.changed", principal.id, principal.id, principal.id, detail=told, at=now)
            try:
                if account is None:
                    await self._records.add_account(Account(principal.id, now, limits=after), event)
                else:
                    await self._records.swap_account(replace(account, limits=after), event)
            except (StaleVersion, Conflict):
                continue
            self._quotas.forget(principal.id)
            return after
        raise Conflict("the account keeps changing: try again")


def require(principal: Principal, scope: Scope) -> None:
    """Forbidden without the scope, and for a credential that reaches a few things alone: an account is about all."""
    principal.require(scope)
    if principal.resources is not None:
        raise Forbidden("this credential reaches a few things alone, and no account")


def tier_of(principal: Principal) -> str:
    """Whose amounts hold for it, in the words of this service."""
    if principal.kind is not KeyKind.STANDARD or principal.admin:
        return UNBOUNDED
    return principal.plan or STANDARD
