"""Ledger: whether somebody may spend, what is set aside for it, and what is charged in the end.

Tasks ask it before they begin, the model gateway around each call, metering for compute and storage, administrators
for credits. The records decide, each time in the transaction that moves the money.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import structlog

from atoll.domain import crash
from atoll.domain.errors import InvalidInput, NotFound, Unavailable
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.ledger import (
    BillingAccount,
    Budget,
    BudgetExceeded,
    Hold,
    HoldState,
    InsufficientCredit,
    NewHold,
    NewTransfer,
    Payee,
    Payer,
    Settled,
    SpendingLimitExceeded,
    TransferKind,
    Use,
)
from atoll.domain.ledger_rules import (
    SpentSoFar,
    check_balance,
    check_budgets,
    check_limits,
    day_of,
    month_of,
)
from atoll.domain.money import AMOUNT_MAX
from atoll.domain.principal import Principal
from atoll.domain.task import ENDED
from atoll.records.base import Records
from atoll.records.ledger import KEEP, LimitChange
from atoll.services.background import Background
from atoll.services.clock import Clock, utc_now
from atoll.services.ledger.prices import Prices
from atoll.services.ledger.settling import Charge, Settling
from atoll.services.ledger.warnings import Warnings
from atoll.telemetry.ledger_metrics import LedgerMetrics

_log = structlog.get_logger()

EXPIRED_AT_ONCE = 1_000
TASK_GRACE_S = 120.0  # after a task's end for its last charges to arrive
REFUSALS = (InsufficientCredit, BudgetExceeded, SpendingLimitExceeded)


class Ledger:
    """Whoever is internal is metered and never charged: `hold` gives None for it, and `settle` stores what it used."""

    def __init__(
        self,
        records: Records,
        prices: Prices | None = None,
        *,
        clock: Clock = utc_now,
        metrics: LedgerMetrics | None = None,
        warnings: Warnings | None = None,
    ) -> None:
        self._records = records
        self.prices = prices or Prices()
        self._clock = clock
        self._metrics = metrics or LedgerMetrics()
        warnings = warnings or Warnings(records, clock=clock, metrics=self._metrics)
        self._settling = Settling(records, warnings, clock=clock, metrics=self._metrics)
        self._background = Background()

    async def account(self, payer: str) -> BillingAccount:
        """The account as it is, made when there is none."""
        return await self._records.billing_account(payer, self._clock())

    async def check(self, payer: Payer) -> None:
        """Whether it may begin to spend: SpendingLimitExceeded, then InsufficientCredit, then BudgetExceeded."""
        if payer.internal:
            return
        now = self._clock()
        account = await self.account(payer.account)
        try:
            if account.daily_limit is not None or account.monthly_limit is not None:
                check_limits(account, await self._spent_so_far(payer.account, now), 0)
            check_balance(account, 0)
            if payer.budgets:
                uses = await self._records.budget_uses([budget.subject for budget in payer.budgets])
                check_budgets(payer.budgets, uses, 0)
        except REFUSALS as error:
            self._metrics.refused(error.code)
            raise

    async def hold(self, payer: Payer, amount_micro_usd: int, *, lasts_s: float) -> Hold | None:
        """Set an amount aside before something is used; None when nothing has to be: `settle` takes that too.

        Refuses as `check` does, of this amount. What nobody settles or voids comes back after `lasts_s`.
        """
        if payer.internal:
            return None
        if amount_micro_usd <= 0:
            await self.check(payer)
            return None
        now = self._clock()
        wanted = NewHold(
            new_id("hold"),
            payer.account,
            min(amount_micro_usd, AMOUNT_MAX),
            now + timedelta(seconds=lasts_s),
            payer.budgets,
            payer.task,
        )
        try:
            held = await self._records.hold(wanted, now)
        except REFUSALS as error:
            self._metrics.refused(error.code)
            raise
        except (asyncio.CancelledError, Unavailable):
            # It may be there all the same: nobody knows its id but us.
            self._background.spawn(self._forget(wanted.id), "a hold that nobody waits for")
            raise
        self._metrics.held("taken")
        crash.point("ledger.hold.taken")
        return held

    async def settle(self, hold: Hold | None, use: Use, *, payee: Payee | None = None) -> Settled | None:
        """Charge what was used, once, and let the rest of the hold go; None when nothing is charged.

        A database that is down is tried again; Unavailable when it stays so: the charge is kept, and made later. It
        is made too when whoever asks is cancelled meanwhile. A `payee` gets what is charged to a hold.
        """
        return await self._settling.settle(Charge(hold, use, payee=payee))

    async def void(self, hold: Hold | None) -> None:
        """Let it go, nothing was used. Where the database is down it expires by itself."""
        if hold is None:
            return
        try:
            gone = await self._records.void_hold(hold.id, self._clock())
        except Unavailable as error:
            _log.warning("ledger.not_voided", hold=hold.id, error=error.message)
            return
        if gone.state is HoldState.VOIDED:
            self._metrics.held("voided")

    async def charge(self, use: Use, *, budgets: tuple[Budget, ...] = ()) -> Settled | None:
        """Charge what nothing was held for, and count it under the budgets; None when nothing is charged."""
        return await self._settling.settle(Charge(None, use, budgets))

    # what administrators do; whether somebody is one is for the caller to say

    async def credit(
        self,
        actor: Principal,
        account: str,
        amount_micro_usd: int,
        *,
        description: str = "",
        key: str | None = None,
    ) -> BillingAccount:
        """Give credits; below 0: take them back, as far as they are available. With a `key` that the account has seen
        nothing moves; Conflict when that was another amount."""
        given = amount_micro_usd > 0
        kind = TransferKind.PURCHASE if given else TransferKind.ADJUSTMENT
        action = "billing.credited" if given else "billing.debited"
        wanted = NewTransfer(account, kind, abs(amount_micro_usd), key, description)
        return await self._transfer(actor, wanted, action)

    async def refund(
        self,
        actor: Principal,
        account: str,
        amount_micro_usd: int,
        *,
        description: str = "",
        key: str | None = None,
    ) -> BillingAccount:
        """Give back what was charged; what was ever spent stays as it is."""
        wanted = NewTransfer(account, TransferKind.REFUND, amount_micro_usd, key, description)
        return await self._transfer(actor, wanted, "billing.refunded")

    async def set_limits(
        self, actor: Principal, account: str, *, daily: LimitChange = KEEP, monthly: LimitChange = KEEP
    ) -> BillingAccount:
        """In place of what was set; None: no limit, KEEP: as it is."""
        for field, limit in (("daily", daily), ("monthly", monthly)):
            if isinstance(limit, int) and not 0 <= limit <= AMOUNT_MAX:
                raise InvalidInput(f"{field} must be 0 to {AMOUNT_MAX // 1_000_000} dollars", field=field)
        changes = (("daily_micro_usd", daily), ("monthly_micro_usd", monthly))
        detail: dict[str, Any] = {name: limit for name, limit in changes if limit != KEEP}
        event = self._event(actor, account, "billing.limited", detail)
        return await self._records.set_spending_limits(account, daily=daily, monthly=monthly, event=event)

    # in the background

    async def expire(self) -> int:
        """Let holds go that are past their moment, or whose task has ended a while ago; how many. What could not be
        charged is tried again first."""
        await self._settling.settle_late()
        gone = 0
        while True:
            expired = await self._records.expire_holds(self._clock(), limit=EXPIRED_AT_ONCE)
            gone += len(expired)
            if len(expired) < EXPIRED_AT_ONCE:
                break
        self._metrics.held("expired", gone)
        return gone + await self._expire_orphans()

    async def close(self, within_s: float = 10.0) -> None:
        """Charges under way are carried to their end; what the database could not take is tried once more."""
        await self._background.close(within_s)
        await self._settling.close(within_s)

    async def _forget(self, hold_id: str) -> None:
        try:
            await self._records.void_hold(hold_id, self._clock())
        except (NotFound, Unavailable):
            return

    async def _expire_orphans(self) -> int:
        """Not voided: another server may still have the charge of one, and no way to the database."""
        now = self._clock()
        waiting = self._settling.waiting_holds()
        gone, known = 0, dict[str, bool]()
        for hold in await self._records.pending_holds(limit=EXPIRED_AT_ONCE):
            if hold.task is None or hold.id in waiting or now - hold.created_at < timedelta(seconds=TASK_GRACE_S):
                continue
            if hold.task not in known:
                known[hold.task] = await self._is_over(hold.task, now)
            if known[hold.task]:
                expired = await self._records.void_hold(hold.id, now, expired=True)
                gone += expired.state is HoldState.EXPIRED
        self._metrics.held("expired", gone)
        return gone

    async def _is_over(self, task_id: str, now: datetime) -> bool:
        task = await self._records.get_task(task_id)
        if task is None:
            return True
        return (
            task.state in ENDED and task.ended_at is not None and now - task.ended_at > timedelta(seconds=TASK_GRACE_S)
        )

    # how

    async def _transfer(self, actor: Principal, wanted: NewTransfer, action: str) -> BillingAccount:
        if not 0 < wanted.amount <= AMOUNT_MAX:
            raise InvalidInput(f"amount must not be 0, and at most {AMOUNT_MAX // 1_000_000} dollars", field="amount")
        detail = {"amount_micro_usd": wanted.amount, "description": wanted.description}
        event = self._event(actor, wanted.account, action, detail)
        moved = await self._records.transfer(wanted, event)
        if moved.at == event.at:  # else it is an earlier one of that key, which was counted then
            self._metrics.transferred(wanted.kind.value, wanted.amount)
        return await self.account(wanted.account)

    async def _spent_so_far(self, account: str, now: datetime) -> SpentSoFar:
        today, month = await asyncio.gather(
            self._records.spent_since(account, _midnight(day_of(now))),
            self._records.spent_since(account, _midnight(month_of(now))),
        )
        return SpentSoFar(now, today, month)

    def _event(self, actor: Principal, account: str, action: str, detail: dict[str, Any]) -> Event:
        return Event(action, account, account, actor=actor.id, detail=detail, at=self._clock())


def _midnight(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T00:00:00+00:00")
