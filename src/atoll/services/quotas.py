"""Quotas: what principals may use, and what they use of it; services ask before they act.

Bounds are those of who owns what is made: a user, a group, a key; a key that somebody else owns may have its own
besides. Owner and internal keys and administrators have none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from atoll.domain.account_limits import narrowed
from atoll.domain.errors import QuotaExceeded
from atoll.domain.ids import GROUP_ID, KEY_ID
from atoll.domain.key import KeyKind
from atoll.domain.principal import Principal
from atoll.domain.quota import (
    GROUP_PLAN,
    HOURLY,
    KEY_PLAN,
    PLANS,
    USER_PLAN,
    Amounts,
    Bound,
    OverridesOf,
    QuotaName,
    QuotaUse,
    Spend,
    told,
)
from atoll.domain.sandbox import LIVE, Sandbox, SandboxSpec
from atoll.domain.user import USER_ID
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.key_lineage import ancestors
from atoll.services.quota_notices import Notices
from atoll.services.remembered import Remembered
from atoll.telemetry.metrics import Metrics

LISTED_MAX = 1_000
UNBOUNDED = "unlimited"  # the plan of those who have no quotas
_METERED = (QuotaName.CPU, QuotaName.EGRESS)


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """The plans, and when to warn."""

    plans: Mapping[str, Amounts] = field(default_factory=lambda: PLANS)
    warn_percent: int = 80
    cache_s: float = 2.0  # how long a change of a plan or an override may take to hold everywhere


@dataclass(frozen=True, slots=True)
class Allotment:
    """What holds for one subject."""

    subject: str
    plan: str
    amounts: Amounts  # of the plan, with the subject's overrides in place
    by_credential: bool = False

    @property
    def bounded(self) -> bool:
        return bool(self.amounts)

    @property
    def metered(self) -> bool:
        """Whether it matters what its sandboxes use while nobody asks for anything."""
        return any(name in self.amounts for name in _METERED)


class Quotas:
    """Decisions that need a count are made by the records, in the transaction that changes it."""

    def __init__(
        self,
        records: Records,
        limits: QuotaLimits | None = None,
        *,
        clock: Clock = utc_now,
        metrics: Metrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._limits = limits or QuotaLimits()
        self._clock = clock
        self.notices = Notices(records, metrics or Metrics(), self._limits.warn_percent, clock, monotonic)
        self._of_owner: Remembered[Allotment] = Remembered(self.look_up, self._limits.cache_s, monotonic)
        self._of_credential: Remembered[Allotment] = Remembered(
            self._look_up_credential, self._limits.cache_s, monotonic
        )

    # what holds

    async def of(self, subject: str) -> Allotment:
        """What holds for an owner: a user, a group or a key; as it was at most `cache_s` ago."""
        return await self._of_owner.get(subject)

    async def look_up(self, subject: str) -> Allotment:
        """The same, as it is now."""
        plan, overrides, account = await asyncio.gather(
            self._plan(subject), self.overrides(subject), self._records.get_account(subject)
        )
        if plan == UNBOUNDED:
            return Allotment(subject, plan, {})
        amounts: dict[QuotaName, int | None] = {**self._plan_amounts(plan), **overrides.amounts}
        found = {name: most for name, most in amounts.items() if most is not None}
        return Allotment(subject, plan, found if account is None else narrowed(found, account.limits))

    async def overrides(self, subject: str) -> OverridesOf:
        """What is set for it."""
        return (await self._records.get_quotas([subject])).get(subject) or OverridesOf(subject)

    def forget(self, subject: str) -> None:
        """What holds for it has changed."""
        self._of_owner.forget(subject)
        self._of_credential.forget(subject)

    def plan_names(self) -> list[str]:
        """The plans that there are; that of a key without one is the empty name."""
        return sorted(self._limits.plans)

    async def holding(self, principal: Principal, owner: str) -> list[Allotment]:
        """What holds when the principal does something with what `owner` has: the owner's, then those of its key
        and of the keys that this one comes from."""
        if principal.kind is not KeyKind.STANDARD or principal.admin:
            return []
        found = [await self.of(owner)]
        found += [await self._of_credential.get(key_id) for key_id in principal.lineage if key_id != owner]
        return [one for one in found if one.bounded]

    async def _look_up_credential(self, credential: str) -> Allotment:
        """What is set for a key that somebody else owns; of its plan only what that says in so many words."""
        found = replace(await self.look_up(credential), by_credential=True)
        if found.plan not in (KEY_PLAN, UNBOUNDED):
            return found
        amounts = (await self.overrides(credential)).amounts
        return replace(found, amounts={what: most for what, most in amounts.items() if most is not None})

    async def _lineage(self, key_id: str) -> list[str]:
        key = await self._records.get_key(key_id) if key_id else None
        if key is None:
            return []
        return [key_id, *[one.id for one in await ancestors(key, self._records.get_key) if one is not None]]

    async def _plan(self, subject: str) -> str:
        if USER_ID.match(subject):
            user = await self._records.get_user(subject)
            return UNBOUNDED if user is not None and user.admin else USER_PLAN
        if GROUP_ID.match(subject):
            return GROUP_PLAN
        key = await self._records.get_key(subject)
        if key is None:
            return KEY_PLAN
        return UNBOUNDED if key.kind is not KeyKind.STANDARD else key.plan

    def _plan_amounts(self, plan: str) -> Amounts:
        plans = self._limits.plans
        return {} if plan == UNBOUNDED else plans.get(plan, plans.get(KEY_PLAN, {}))

    # sandboxes

    async def shaped(self, principal: Principal, owner: str, spec: SandboxSpec) -> SandboxSpec:
        """What is asked for, no older than the plan lets it become. QuotaExceeded for more memory than it gives one."""
        for one in await self.holding(principal, owner):
            memory, age_s = one.amounts.get(QuotaName.SANDBOX_MEMORY), one.amounts.get(QuotaName.SANDBOX_S)
            asked = spec.resources
            if memory is not None and asked.memory_bytes > memory:
                error = QuotaExceeded(
                    f"the plan gives a session at most {memory // 2**20} MiB of memory, "
                    f"and this asks for {asked.memory_bytes // 2**20}",
                    quota=QuotaName.SANDBOX_MEMORY,
                    subject=one.subject,
                    used=asked.memory_bytes,
                    limit=memory,
                )
                await self.refused(error, owner, principal.id)
                raise error
            if age_s is not None and (asked.max_age_s is None or asked.max_age_s > age_s):
                spec = replace(spec, resources=replace(asked, max_age_s=float(age_s)))
        return spec

    async def bounds(self, principal: Principal, owner: str) -> list[Bound]:
        """What the records are to hold when a sandbox is added. QuotaExceeded where work of any kind must wait."""
        allotments = await self.holding(principal, owner)
        await self._check_metered(allotments, owner, principal.id)
        midnight = self._midnight()
        return [bound for one in allotments if (bound := _bound(one, midnight)).holds]

    async def bounds_of(self, sandbox: Sandbox) -> list[Bound]:
        """The same for one that wakes, whoever woke it."""
        allotments = await self._holding_of(sandbox)
        await self._check_metered(allotments, sandbox.owner, sandbox.owner)
        return [bound for one in allotments if (bound := _bound(one, None)).holds]

    async def bounds_egress(self, sandbox: Sandbox) -> bool:
        """Whether anything bounds what it sends."""
        return any(QuotaName.EGRESS in one.amounts for one in await self._holding_of(sandbox))

    async def egress_left(self, sandbox: Sandbox, uncounted_bytes: int = 0) -> int | None:
        """How much more it may send, whoever sends; None: anything. QuotaExceeded when nothing is left."""
        spends = [one for one in _metered(await self._holding_of(sandbox)) if one.name is QuotaName.EGRESS]
        left: int | None = None
        for use in await self._spend(spends, sandbox.owner, sandbox.owner):
            remaining = (use.remaining or 0) - uncounted_bytes
            if remaining <= 0:
                used, most = use.used + uncounted_bytes, use.limit or 0
                error = QuotaExceeded(
                    f"{use.name.value} limit reached ({used}/{most})",
                    quota=use.name,
                    subject=use.subject,
                    used=used,
                    limit=most,
                )
                await self.refused(error, sandbox.owner, sandbox.owner)
                raise error
            left = remaining if left is None else min(left, remaining)
        return left

    async def _holding_of(self, sandbox: Sandbox) -> list[Allotment]:
        """What holds for what a sandbox does by itself, whoever asked for it."""
        allotments = [await self.of(sandbox.owner)]
        if allotments[0].plan == UNBOUNDED:
            return []
        lineage = await self._lineage(sandbox.credential)
        allotments += [await self._of_credential.get(key_id) for key_id in lineage if key_id != sandbox.owner]
        return allotments

    async def execution(self, principal: Principal, sandbox: Sandbox) -> None:
        """Count a command that is about to start. QuotaExceeded when there were too many, or too much was used."""
        allotments = await self.holding(principal, sandbox.owner)
        if not allotments:
            return
        spends = _metered(allotments)
        most = [one.amounts[QuotaName.EXECUTIONS] for one in allotments if QuotaName.EXECUTIONS in one.amounts]
        if most:
            spends.append(Spend(sandbox.id, QuotaName.EXECUTIONS, 1, min(most)))
        await self._spend(spends, sandbox.owner, principal.id)

    async def used(self, uses: Iterable[QuotaUse], owner: str, actor: str, *, tell: bool = True) -> None:
        """What the records told when they added something; without `tell` the answer says nothing of it."""
        await self.notices.used(uses, owner, actor, tell=tell)

    async def refused(self, error: QuotaExceeded, owner: str, actor: str) -> None:
        """The records, or somebody else, refused something for a quota."""
        await self.notices.refused(error, owner, actor)

    async def look(self, owner: str) -> None:
        """Warn of what the owner's sandboxes use while nobody asks for anything."""
        spends = _metered([await self.of(owner)])
        spent = await self._records.spent([owner], self._clock())
        uses = [QuotaUse(one.name, owner, told(one.name, spent.get((owner, one.name), 0)), one.limit) for one in spends]
        await self.notices.used(uses, owner, "system")

    async def _check_metered(self, allotments: list[Allotment], owner: str, actor: str) -> None:
        await self._spend(_metered(allotments), owner, actor)

    async def _spend(self, spends: list[Spend], owner: str, actor: str) -> list[QuotaUse]:
        if not spends:
            return []
        try:
            uses = await self._records.spend(spends, self._clock())
        except QuotaExceeded as error:
            await self.refused(error, owner, actor)
            raise
        await self.notices.used(uses, owner, actor)
        return uses

    # looking

    async def usage(self, principal: Principal) -> list[QuotaUse]:
        """What the principal's own id has used, each quota once; limit None where nothing bounds it."""
        return await self.usage_of(principal.id, bounded=principal.kind is KeyKind.STANDARD and not principal.admin)

    async def usage_of(self, subject: str, *, bounded: bool = True) -> list[QuotaUse]:
        """The same of a user, group or key; of a key that somebody else owns, what was made with it. Executions are
        those of its busiest sandbox."""
        key = await self._records.get_key(subject) if KEY_ID.match(subject) else None
        by_credential = key is not None and key.owner != key.id
        allotment = await (self._of_credential.get(subject) if by_credential else self.of(subject))
        amounts: Amounts = allotment.amounts if bounded else {}
        now = self._clock()
        has = await self._records.sandbox_use(Bound(subject, by_credential, since=self._midnight()))
        live = await self._records.list_sandboxes(owner=subject, states=LIVE, limit=LISTED_MAX)
        spent = await self._records.spent([subject, *(one.id for one in live)], now)
        busiest = max((spent.get((one.id, QuotaName.EXECUTIONS), 0) for one in live), default=0)
        amount = {
            QuotaName.EXECUTIONS: busiest,
            QuotaName.SANDBOXES: has.sandboxes,
            QuotaName.DAILY: has.made,
            QuotaName.MEMORY: has.memory_bytes,
            QuotaName.STORED: await self._records.stored_bytes(subject),
            **{name: told(name, spent.get((subject, name), 0)) for name in _METERED},
            QuotaName.SANDBOX_MEMORY: max((one.spec.resources.memory_bytes for one in live), default=0),
            QuotaName.SANDBOX_S: max((int((now - one.created_at).total_seconds()) for one in live), default=0),
        }
        return [QuotaUse(name, subject, amount[name], amounts.get(name)) for name in QuotaName]

    def resets_at(self, name: QuotaName) -> datetime | None:
        """When a used quota is whole again, for those that are counted by the day."""
        return self._midnight() + timedelta(days=1) if name is QuotaName.DAILY else None

    def _midnight(self) -> datetime:
        return self._clock().replace(hour=0, minute=0, second=0, microsecond=0)


def credential_of(principal: Principal, owner: str) -> str:
    """The key that a sandbox counts against besides its owner, with all that this one comes from; empty for the
    owner's own, and where no key has anything to do with it."""
    nearest = next(iter(principal.lineage), "")
    return nearest if nearest != owner else ""


def plans_with(sandboxes_per_key: int, stored_bytes: int = 0) -> dict[str, Amounts]:
    """The plans without settings: so many sandboxes for keys, so much stored where a plan does not say; 0: no bound."""
    stored: Amounts = {QuotaName.STORED: stored_bytes} if stored_bytes else {}
    plans = {**PLANS, KEY_PLAN: {QuotaName.SANDBOXES: sandboxes_per_key}}
    return {name: {**stored, **amounts} for name, amounts in plans.items()}


def _bound(of: Allotment, midnight: datetime | None) -> Bound:
    made = of.amounts.get(QuotaName.DAILY)
    return Bound(
        of.subject,
        of.by_credential,
        sandboxes=of.amounts.get(QuotaName.SANDBOXES),
        memory_bytes=of.amounts.get(QuotaName.MEMORY),
        made=None if midnight is None else made,
        since=None if made is None else midnight,
    )


def _metered(allotments: Iterable[Allotment]) -> list[Spend]:
    """What asks whether anything is left of what is counted by the hour and measured afterwards."""
    return [
        Spend(one.subject, name, 0, one.amounts[name]) for one in allotments for name in _METERED if name in one.amounts
    ]


def is_hourly(name: QuotaName) -> bool:
    """Whether it is counted over the last hour."""
    return name in HOURLY
