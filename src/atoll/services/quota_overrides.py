"""Overrides: who may have more, or less, than a plan says; administrators set them, over HTTP or at the command line.

They hold for a user, a group or a key, on every server within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.domain.errors import Forbidden, InvalidInput, NotFound
from atoll.domain.event import Event
from atoll.domain.ids import GROUP_ID, KEY_ID
from atoll.domain.key import ApiKey, KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.quota import AMOUNT_MAX, OverridesOf, QuotaChange, QuotaName, QuotaUse
from atoll.domain.quota_rules import with_quotas
from atoll.domain.user import USER_ID
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.principals import user_meant
from atoll.services.quotas import UNBOUNDED, Quotas

NAMES = ", ".join(name.value for name in QuotaName)


@dataclass(frozen=True, slots=True)
class QuotaStanding:
    """What somebody may use and uses; the overrides are in it."""

    subject: str
    plan: str
    uses: tuple[QuotaUse, ...]
    overrides: Mapping[QuotaName, int | None]


class QuotaOverrides:
    """Looks at everybody's quotas, and sets them."""

    def __init__(self, records: Records, quotas: Quotas, clock: Clock = utc_now) -> None:
        self._records = records
        self._quotas = quotas
        self._clock = clock

    async def mine(self, principal: Principal) -> list[QuotaStanding]:
        """The principal's own, the key's that it came with where it has some, and its groups'. Needs `read`."""
        principal.require(Scope.READ)
        unbounded = principal.kind is not KeyKind.STANDARD or principal.admin
        found = [await self._standing(principal.id, unbounded=unbounded)]
        credential = principal.credential
        if (
            credential != principal.id
            and KEY_ID.match(credential)
            and (await self._quotas.overrides(credential)).amounts
        ):
            found.append(await self._standing(credential, unbounded=unbounded))
        if principal.resources is not None:  # one that reaches a few things alone learns nothing of the others
            return found
        return [*found, *[await self._standing(group) for group in sorted(principal.groups)]]

    async def get(self, principal: Principal, subject: str) -> QuotaStanding:
        """Somebody's: a user's, a group's or a key's. Forbidden but for administrators; NotFound."""
        _check_admin(principal)
        subject, _ = await self._known(subject)
        return await self._standing(subject)

    async def list(self, principal: Principal, *, limit: int = 1000) -> list[OverridesOf]:
        """Everybody's overrides. Forbidden but for administrators."""
        _check_admin(principal)
        return await self._records.list_quotas(limit=limit)

    async def put(self, principal: Principal, subject: str, amounts: Mapping[str, int | None]) -> QuotaStanding:
        """Set all its overrides; None is no bound, and what is not named is as the plan says. None of them: take them
        away. Forbidden but for administrators; NotFound; InvalidInput names the quota."""
        _check_admin(principal)
        subject, tenant = await self._known(subject)
        wanted = {_name(name): _amount(name, amount) for name, amount in amounts.items()}
        event = self._event("quota.set" if wanted else "quota.cleared", subject, tenant, principal)
        event = with_quotas(event, wanted)
        await self._records.put_quotas(OverridesOf(subject, wanted), event)
        self._quotas.forget(subject)
        return await self._standing(subject)

    async def change(self, principal: Principal, subject: str, amounts: Mapping[str, int | None]) -> QuotaStanding:
        """Set some of them and leave the others."""
        _check_admin(principal)
        wanted = {_name(name): _amount(name, amount) for name, amount in amounts.items()}
        return await self._change(principal, QuotaChange(subject, wanted))

    async def clear(self, principal: Principal, subject: str, names: Sequence[str] = ()) -> QuotaStanding:
        """Back to what the plan says: some of them, or all."""
        _check_admin(principal)
        if not names:
            return await self.put(principal, subject, {})
        cleared = frozenset(_name(name) for name in names)
        return await self._change(principal, QuotaChange(subject, cleared=cleared))

    async def _change(self, principal: Principal, change: QuotaChange) -> QuotaStanding:
        subject, tenant = await self._known(change.subject)
        change = replace(change, subject=subject)
        await self._records.change_quotas(change, self._event("quota.set", subject, tenant, principal))
        self._quotas.forget(change.subject)
        return await self._standing(change.subject)

    def _event(self, action: str, subject: str, tenant: str, principal: Principal) -> Event:
        return Event(action, subject, tenant, principal.id, at=self._clock())

    async def _standing(self, subject: str, *, unbounded: bool = False) -> QuotaStanding:
        allotment = await self._quotas.look_up(subject)
        unbounded = unbounded or allotment.plan == UNBOUNDED
        uses = await self._quotas.usage_of(subject, bounded=not unbounded)
        plan = UNBOUNDED if unbounded else allotment.plan
        return QuotaStanding(subject, plan, tuple(uses), (await self._quotas.overrides(subject)).amounts)

    async def _known(self, subject: str) -> tuple[str, str]:
        """Its id, that of a user, a group or a key, or of the user of that name; and whose it is."""
        records = self._records
        subject = await user_meant(records, subject)
        if USER_ID.match(subject):
            known: object = await records.get_user(subject)
        elif GROUP_ID.match(subject):
            known = await records.get_group(subject)
        else:
            known = await records.get_key(subject) if KEY_ID.match(subject) else None
        if known is None:
            raise NotFound("user, group or key not found")
        return subject, known.owner if isinstance(known, ApiKey) else subject


def _check_admin(principal: Principal) -> None:
    if not principal.admin:
        raise Forbidden("only administrators see and set quotas by id: your own are those of GET /api/quotas")


def _name(text: str) -> QuotaName:
    try:
        return QuotaName(text)
    except ValueError:
        raise InvalidInput(f"quotas are {NAMES}; not {text[:64]!r}", field="quotas") from None


def _amount(name: str, amount: int | None) -> int | None:
    if amount is not None and not 0 <= amount <= AMOUNT_MAX:
        raise InvalidInput(f"{name} must be null, for no bound, or 0 to {AMOUNT_MAX}", field="quotas")
    return amount
