"""The ledger of MemoryRecords, in dictionaries: the same rules as in SQL, without transactions to lose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.event import Event
from atoll.domain.ledger import (
    BillingAccount,
    Budget,
    BudgetUse,
    Hold,
    HoldState,
    NewHold,
    NewTransfer,
    Payee,
    Settled,
    Spent,
    Transfer,
    TransferKind,
    Use,
)
from atoll.domain.ledger_rules import (
    SpentSoFar,
    balance_after,
    chargeable,
    check_amount,
    check_balance,
    check_budgets,
    check_limits,
    check_name,
    check_payee,
    check_refund,
    check_repeated,
    day_of,
    earning,
    legs,
    month_of,
    new_hold,
    sale_key,
    spent_bounds,
)
from atoll.records.ledger import KEEP, LedgerRecords, LimitChange, UseQuery, UseTotal

NAMED_BY = ("account", "task", "workspace", "sandbox", "workspace_owner", "model", "kind")


class MemoryLedger(LedgerRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._billing: dict[str, BillingAccount] = {}
        self._transfers: list[Transfer] = []
        self._money_holds: dict[str, Hold] = {}
        self._hold_budgets: dict[str, tuple[Budget, ...]] = {}
        self._charged_holds: set[str] = set()
        self._budget_uses: dict[str, BudgetUse] = {}
        self._days: dict[tuple[str, str], int] = {}
        self._metered: dict[str, Use] = {}

    def _check(self) -> None:
        """Unavailable while the store is down: `MemoryRecords` says when."""

    def _log(self, event: Event | None) -> None:
        raise NotImplementedError

    # accounts

    async def billing_account(self, account: str, now: datetime) -> BillingAccount:
        self._check()
        check_name(account)
        return self._account(account, now)

    async def transfer(self, wanted: NewTransfer, event: Event) -> Transfer:
        self._check()
        check_name(wanted.account)
        check_amount(wanted.amount)
        if wanted.kind in (TransferKind.USAGE, TransferKind.EARNING):
            raise InvalidInput("what was used is charged, and earned, with its use", field="kind")
        for first in self._transfers:
            if wanted.key is not None and (first.account, first.key) == (wanted.account, wanted.key):
                check_repeated(first, wanted)
                return first
        account = self._account(wanted.account, event.at)
        given_back = (one for one in self._transfers if one.kind is TransferKind.REFUND)
        check_refund(account, sum(one.amount for one in given_back if one.account == account.id), wanted)
        balance = balance_after(account, wanted)
        self._billing[account.id] = replace(account, balance=balance, updated_at=event.at)
        moved = self._move(
            wanted.account,
            wanted.kind,
            wanted.amount,
            event.at,
            key=wanted.key,
            description=wanted.description,
            detail=dict(wanted.detail),
        )
        self._log(event)
        return moved

    async def set_spending_limits(
        self, account: str, *, daily: LimitChange, monthly: LimitChange, event: Event
    ) -> BillingAccount:
        self._check()
        check_name(account)
        before = self._account(account, event.at)
        a_day = before.daily_limit if daily == KEEP else daily
        a_month = before.monthly_limit if monthly == KEEP else monthly
        after = replace(before, daily_limit=a_day, monthly_limit=a_month, updated_at=event.at)
        self._billing[account] = after
        self._log(event)
        return after

    # holds

    async def hold(self, wanted: NewHold, now: datetime) -> Hold:
        self._check()
        check_name(wanted.account)
        check_amount(wanted.amount)
        made = new_hold(wanted, now)
        if wanted.id in self._money_holds:
            return self._money_holds[wanted.id]
        account = self._account(wanted.account, now)
        check_limits(account, self._spent_so_far(account.id, now), wanted.amount)
        check_balance(account, wanted.amount)
        check_budgets(wanted.budgets, self._budget_uses, wanted.amount)
        self._billing[account.id] = replace(account, held=account.held + wanted.amount, updated_at=now)
        self._add_to_budgets(made.budgets, held=wanted.amount)
        self._hold_budgets[made.id] = wanted.budgets
        self._money_holds[made.id] = made
        return made

    async def post_hold(self, hold_id: str, use: Use, now: datetime, *, payee: Payee | None = None) -> Settled:
        self._check()
        hold = self._hold(hold_id)
        account = self._billing[hold.account]
        if hold_id in self._charged_holds or hold.state in (HoldState.POSTED, HoldState.VOIDED):
            return Settled(hold, account, 0)
        if use.id in self._metered:
            raise Conflict(f"use {use.id} is stored already")
        check_payee(account, payee)
        self._charged_holds.add(hold_id)
        return self._settle(hold, use, self._hold_budgets[hold_id], now, payee)

    async def void_hold(self, hold_id: str, now: datetime, *, expired: bool = False) -> Hold:
        self._check()
        hold = self._hold(hold_id)
        state = HoldState.EXPIRED if expired else HoldState.VOIDED
        return self._let_go(hold, state, now) if hold.state is HoldState.PENDING else hold

    async def get_hold(self, hold_id: str) -> Hold | None:
        self._check()
        return self._money_holds.get(hold_id)

    async def expire_holds(self, now: datetime, *, limit: int = 1000) -> list[Hold]:
        self._check()
        due = [hold for hold in self._pending() if hold.expires_at <= now]
        due.sort(key=lambda hold: (hold.expires_at, hold.id))
        return [self._let_go(hold, HoldState.EXPIRED, now) for hold in due[:limit]]

    async def pending_holds(self, *, task: str | None = None, limit: int = 1000) -> list[Hold]:
        self._check()
        found = [hold for hold in self._pending() if task is None or hold.task == task]
        return sorted(found, key=lambda hold: (hold.created_at, hold.id))[:limit]

    async def add_use(self, use: Use, now: datetime, *, budgets: tuple[Budget, ...] = ()) -> Settled | None:
        self._check()
        if not use.internal:
            check_name(use.account)
        if use.internal or not use.cost.total:
            self._metered.setdefault(use.id, replace(use, charged=0))
            return None
        account = self._account(use.account, now)
        subjects = tuple(budget.subject for budget in budgets)
        hold = Hold(use.id, use.account, 0, HoldState.POSTED, now, now, subjects, use.task, resolved_at=now)
        if use.id in self._metered:
            return Settled(hold, account, 0)
        return self._settle(hold, use, budgets, now)

    async def budget_uses(self, subjects: Collection[str]) -> dict[str, BudgetUse]:
        self._check()
        known = self._budget_uses
        return {name: known[name] for name in subjects if name in known and (known[name].spent or known[name].held)}

    # what there is

    async def spent_since(self, account: str, since: datetime) -> int:
        self._check()
        return sum(spent for (whose, day), spent in self._days.items() if whose == account and day >= day_of(since))

    async def list_transfers(
        self,
        account: str,
        *,
        kind: TransferKind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Transfer]:
        self._check()
        found = [
            one
            for one in reversed(self._transfers)
            if one.account == account
            and (kind is None or one.kind is kind)
            and (since is None or one.at >= since)
            and (until is None or one.at < until)
        ]
        return found[offset : offset + limit]

    async def list_uses(self, query: UseQuery, *, limit: int = 100, offset: int = 0) -> list[Use]:
        self._check()
        found = sorted(self._wanted(query), key=lambda use: (use.at, use.id), reverse=True)
        return found[offset : offset + limit]

    async def total_uses(self, query: UseQuery, *, by: str = "", limit: int = 100, offset: int = 0) -> list[UseTotal]:
        self._check()
        if by and by != "day" and by not in NAMED_BY:
            raise InvalidInput(f"by is one of {', '.join(NAMED_BY)} and day", field="by")
        named: dict[str, list[Use]] = {} if by else {"": []}
        for use in self._wanted(query):
            name = "" if not by else day_of(use.at) if by == "day" else getattr(use, by)
            if name is not None:
                named.setdefault(name, []).append(use)
        totals = [_total(name, uses) for name, uses in named.items()]
        if by == "day":
            totals.sort(key=lambda one: one.name, reverse=True)
        else:
            totals.sort(key=lambda one: (-one.input_cost - one.output_cost, one.name))
        return totals[offset : offset + limit]

    async def all_transfers(self, *, after: int = 0, limit: int = 10_000) -> Sequence[Transfer]:
        self._check()
        return self._transfers[after : after + limit]

    async def all_billing_accounts(self, *, after: str = "", limit: int = 10_000) -> Sequence[BillingAccount]:
        self._check()
        return [self._billing[name] for name in sorted(self._billing) if name > after][:limit]

    # how money moves

    def _account(self, account: str, now: datetime) -> BillingAccount:
        return self._billing.setdefault(account, BillingAccount(account, 0, 0, 0, None, None, now, now))

    def _move(self, account: str, kind: TransferKind, amount: int, at: datetime, **fields: Any) -> Transfer:
        debit, credit = legs(kind, account)
        other, change = (debit, -amount) if credit == account else (credit, amount)
        system = self._account(other, at)
        self._billing[other] = replace(system, balance=system.balance + change)
        balance = self._billing[account].balance
        moved = Transfer(len(self._transfers) + 1, debit, credit, amount, kind, account, balance, at, **fields)
        self._transfers.append(moved)
        if kind is TransferKind.USAGE:
            self._days[account, day_of(at)] = self._days.get((account, day_of(at)), 0) + amount
        return moved

    def _settle(
        self, hold: Hold, use: Use, budgets: tuple[Budget, ...], now: datetime, payee: Payee | None = None
    ) -> Settled:
        account = self._billing[hold.account]
        bounds = budgets if hold.amount else ()
        charged = chargeable(account, hold, use.cost.total, bounds, self._budget_uses)
        held = hold.amount if hold.state is HoldState.PENDING else 0
        spent = spent_bounds(account, self._spent_so_far(account.id, now), charged)
        for budget in budgets:
            before = self._budget_uses.get(budget.subject, BudgetUse(budget.subject, 0, 0)).spent
            spent.append(Spent(budget.subject, budget.limit, before, before + charged))
        self._add_to_budgets(hold.budgets, spent=charged, held=-held)
        account = self._billing[account.id] = replace(
            account,
            balance=account.balance - charged,
            held=account.held - held,
            spent=account.spent + charged,
            updated_at=now,
        )
        if hold.state is HoldState.PENDING:
            hold = replace(hold, state=HoldState.POSTED, resolved_at=now)
        hold = replace(hold, posted=charged)
        if hold.id in self._money_holds:
            self._money_holds[hold.id] = hold
        self._metered[use.id] = replace(use, charged=charged)
        if charged:
            detail: dict[str, Any] = {"use": use.id, "what": use.kind.value}
            detail |= {name: value for name in ("model", "task") if (value := getattr(use, name))}
            detail |= {"budgets": sorted(hold.budgets)} if hold.budgets else {}
            payee = payee or Payee("")
            earned = earning(self._account(payee.account, now), charged) if payee.account else 0
            detail |= {**payee.detail, "payee": payee.account, "earned": earned} if earned else payee.detail
            told = {"hold": hold.id, "description": payee.description, "detail": detail}
            self._move(account.id, TransferKind.USAGE, charged, now, **told)
            if earned:
                author = self._account(payee.account, now)
                self._billing[author.id] = replace(author, balance=author.balance + earned, updated_at=now)
                told = {"key": sale_key(hold.id), "description": payee.description, "detail": dict(payee.detail)}
                self._move(author.id, TransferKind.EARNING, earned, now, **told)
        return Settled(hold, account, charged, use.cost.total - charged, tuple(spent))

    def _hold(self, hold_id: str) -> Hold:
        found = self._money_holds.get(hold_id)
        if found is None:
            raise NotFound(f"hold {hold_id} does not exist")
        return found

    def _pending(self) -> list[Hold]:
        return [hold for hold in self._money_holds.values() if hold.state is HoldState.PENDING]

    def _let_go(self, hold: Hold, state: HoldState, now: datetime) -> Hold:
        account = self._billing[hold.account]
        self._billing[account.id] = replace(account, held=account.held - hold.amount, updated_at=now)
        self._add_to_budgets(hold.budgets, held=-hold.amount)
        gone = self._money_holds[hold.id] = replace(hold, state=state, resolved_at=now)
        return gone

    def _add_to_budgets(self, subjects: Iterable[str], *, spent: int = 0, held: int = 0) -> None:
        for subject in subjects:
            use = self._budget_uses.get(subject, BudgetUse(subject, 0, 0))
            self._budget_uses[subject] = BudgetUse(subject, use.spent + spent, use.held + held)

    def _spent_so_far(self, account: str, now: datetime) -> SpentSoFar:
        days = {day: spent for (whose, day), spent in self._days.items() if whose == account}
        month = sum(spent for day, spent in days.items() if day >= month_of(now))
        return SpentSoFar(now, days.get(day_of(now), 0), month)

    def _wanted(self, query: UseQuery) -> list[Use]:
        names = ("account", "task", "sandbox", "workspace", "workspace_owner", "kind", "internal")
        bounds = {name: value for name in names if (value := getattr(query, name)) is not None}
        return [
            use
            for use in self._metered.values()
            if all(getattr(use, name) == value for name, value in bounds.items())
            and (query.since is None or use.at >= query.since)
            and (query.until is None or use.at < query.until)
        ]


def _total(name: str, uses: Sequence[Use]) -> UseTotal:
    return UseTotal(
        name,
        len(uses),
        sum(use.tokens.input for use in uses),
        sum(use.tokens.output for use in uses),
        sum(use.tokens.cached for use in uses),
        sum(use.cost.input for use in uses),
        sum(use.cost.output for use in uses),
        sum(use.charged for use in uses),
        min((use.at for use in uses), default=None),
        max((use.at for use in uses), default=None),
        tasks=len({use.task for use in uses} - {None}),
        seconds=sum(use.seconds for use in uses),
    )
