"""Holds in SQL: an amount is set aside, and then charged, let go or expired, exactly once; uses are stored on the way.

`sql_ledger.py` inherits it; every change of a hold happens under its account's lock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.ledger import (
    BillingAccount,
    Budget,
    BudgetUse,
    Hold,
    HoldState,
    NewHold,
    Payee,
    Settled,
    Spent,
    TransferKind,
    Use,
)
from atoll.domain.ledger_rules import (
    chargeable,
    check_amount,
    check_balance,
    check_budgets,
    check_limits,
    check_name,
    check_payee,
    earning,
    new_hold,
    sale_key,
    spent_bounds,
)
from atoll.records.ledger import LedgerRecords
from atoll.records.ledger_rows import budgets_of, hold_of, hold_row, use_row
from atoll.records.prepared import Prepared
from atoll.records.schema import ledger_budgets, ledger_holds, ledger_uses
from atoll.records.sql_postings import (
    Movement,
    add_to_budgets,
    locked_account,
    locked_budgets,
    move,
    set_account,
    spent_so_far,
)
from atoll.records.sql_store import SqlStore, pieces, storable

_holds = ledger_holds.c
_GET = Prepared(select(ledger_holds).where(_holds.id == bindparam("wanted")))
_ADD = Prepared(insert(ledger_holds).inline())
_RESOLVE = Prepared(
    update(ledger_holds)
    .where(_holds.id == bindparam("of"))
    .values({name: bindparam(f"new_{name}") for name in ("state", "posted", "resolved_at", "use")})
)
_ADD_USE = Prepared(insert(ledger_uses).inline())
_USED = Prepared(select(ledger_uses.c.id).where(ledger_uses.c.id == bindparam("wanted")))


@dataclass(frozen=True, slots=True)
class _Charge:
    """What is to be charged: for which use, out of which hold, within which budgets, to whom it goes."""

    use: Use
    hold: Hold
    budgets: tuple[Budget, ...]
    payee: Payee | None = None


class SqlHolds(SqlStore, LedgerRecords):
    """See `LedgerRecords` for what each method does."""

    async def hold(self, wanted: NewHold, now: datetime) -> Hold:
        check_name(wanted.account)
        check_amount(wanted.amount)
        made = new_hold(wanted, now)
        row = storable(hold_row(made, wanted.budgets))

        def take(connection: Connection) -> Hold:
            account = locked_account(connection, wanted.account, now)
            known = _GET.first(connection, {"wanted": wanted.id})
            if known is not None:
                return hold_of(known)
            check_limits(account, spent_so_far(connection, account, now), wanted.amount)
            check_balance(account, wanted.amount)
            check_budgets(wanted.budgets, locked_budgets(connection, made.budgets), wanted.amount)
            set_account(connection, replace(account, held=account.held + wanted.amount, updated_at=now))
            add_to_budgets(connection, made.budgets, held=wanted.amount)
            _ADD.run(connection, row)
            return made

        return await self._commit(take, durable=False)

    async def post_hold(self, hold_id: str, use: Use, now: datetime, *, payee: Payee | None = None) -> Settled:
        row = storable(use_row(use))

        def post(connection: Connection) -> Settled:
            account, found = _locked_hold(connection, hold_id, now, payee)
            hold = hold_of(found)
            check_payee(account, payee)
            if found["use"] is not None or hold.state in (HoldState.POSTED, HoldState.VOIDED):
                return Settled(hold, account, 0)
            return _settle(connection, account, _Charge(use, hold, budgets_of(found), payee), row, now)

        return await self._commit(post)

    async def void_hold(self, hold_id: str, now: datetime, *, expired: bool = False) -> Hold:
        state = "expired" if expired else "voided"

        def void(connection: Connection) -> Hold:
            account, found = _locked_hold(connection, hold_id, now)
            hold = hold_of(found)
            return hold if hold.state is not HoldState.PENDING else _let_go(connection, account, hold, state, now)

        return await self._commit(void, durable=False)

    async def get_hold(self, hold_id: str) -> Hold | None:
        return await self._one(_GET, hold_of, wanted=hold_id)

    async def expire_holds(self, now: datetime, *, limit: int = 1000) -> list[Hold]:
        due = select(ledger_holds).where(_holds.state == "pending", _holds.expires_at <= now)
        found = await self._all(due.order_by(_holds.expires_at, _holds.id).limit(limit), hold_of)
        expired: list[Hold] = []
        for one in found:  # each in its own transaction: two accounts at once would wait in a circle

            def expire(connection: Connection, hold_id: str = one.id) -> Hold | None:
                account, row = _locked_hold(connection, hold_id, now)
                hold = hold_of(row)
                if hold.state is not HoldState.PENDING:
                    return None
                return _let_go(connection, account, hold, "expired", now)

            gone = await self._commit(expire, durable=False)
            if gone is not None:
                expired.append(gone)
        return expired

    async def pending_holds(self, *, task: str | None = None, limit: int = 1000) -> list[Hold]:
        query = select(ledger_holds).where(_holds.state == "pending")
        if task is not None:
            query = query.where(_holds.task == task)
        return await self._all(query.order_by(_holds.created_at, _holds.id).limit(limit), hold_of)

    async def add_use(self, use: Use, now: datetime, *, budgets: tuple[Budget, ...] = ()) -> Settled | None:
        row, subjects = storable(use_row(use)), tuple(budget.subject for budget in budgets)

        def add(connection: Connection) -> Settled | None:
            if use.internal or not use.cost.total:
                if _USED.first(connection, {"wanted": use.id}) is None:
                    _insert_use(connection, row | {"charged": 0})
                return None
            account = locked_account(connection, use.account, now)
            hold = Hold(use.id, use.account, 0, HoldState.POSTED, now, now, subjects, use.task, resolved_at=now)
            if _USED.first(connection, {"wanted": use.id}) is not None:
                return Settled(hold, account, 0)
            return _settle(connection, account, _Charge(use, hold, budgets), row, now)

        if not use.internal:
            check_name(use.account)
        return await self._commit(add)

    async def budget_uses(self, subjects: Collection[str]) -> dict[str, BudgetUse]:
        found: dict[str, BudgetUse] = {}
        for some in pieces(sorted(set(subjects))):
            query = select(ledger_budgets).where(ledger_budgets.c.subject.in_(some))
            for one in await self._all(query, lambda row: BudgetUse(row["subject"], row["spent"], row["held"])):
                if one.spent or one.held:
                    found[one.subject] = one
        return found


def _locked_hold(
    connection: Connection, hold_id: str, now: datetime, payee: Payee | None = None
) -> tuple[BillingAccount, dict[str, Any]]:
    """The hold's account and the hold, as they are until the transaction ends; the payee's account is locked too, in
    one order, since two may pay each other."""
    found = _GET.first(connection, {"wanted": hold_id})
    if found is None:
        raise NotFound(f"hold {hold_id} does not exist")
    if payee is not None and payee.account < found["account"]:
        locked_account(connection, payee.account, now)
    account = locked_account(connection, found["account"], now)
    if payee is not None:
        locked_account(connection, payee.account, now)
    return account, _GET.first(connection, {"wanted": hold_id}) or found


def _settle(
    connection: Connection, account: BillingAccount, charge: _Charge, row: dict[str, Any], now: datetime
) -> Settled:
    """Charge it, resolve its hold, count it everywhere and store the use."""
    hold, cost = charge.hold, charge.use.cost.total
    uses = locked_budgets(connection, hold.budgets) if charge.budgets else {}
    bounds = charge.budgets if hold.amount else ()  # nothing was held: it is charged, and counted, all the same
    charged = chargeable(account, hold, cost, bounds, uses)
    held = hold.amount if hold.state is HoldState.PENDING else 0
    spent = spent_bounds(account, spent_so_far(connection, account, now), charged)
    for budget in charge.budgets:
        before = uses[budget.subject].spent
        spent.append(Spent(budget.subject, budget.limit, before, before + charged))
    if charge.budgets:
        add_to_budgets(connection, hold.budgets, spent=charged, held=-held)
    account = replace(
        account,
        balance=account.balance - charged,
        held=account.held - held,
        spent=account.spent + charged,
        updated_at=now,
    )
    set_account(connection, account)
    if hold.state is HoldState.PENDING:
        hold = replace(hold, state=HoldState.POSTED, resolved_at=now)
    hold = replace(hold, posted=charged)
    _resolve(connection, hold, charge.use.id)
    _insert_use(connection, row | {"charged": charged})
    if charged:
        detail = {name: value for name in ("model", "task") if (value := getattr(charge.use, name))}
        what = {"use": charge.use.id, "what": charge.use.kind.value, **detail}
        movement = Movement(TransferKind.USAGE, charged, now, hold=hold.id, detail=what, budgets=hold.budgets)
        if charge.payee is None:
            move(connection, account, movement)
        else:
            _move_on(connection, account, movement, charge.payee)
    return Settled(hold, account, charged, cost - charged, tuple(spent))


def _move_on(connection: Connection, account: BillingAccount, movement: Movement, payee: Payee) -> None:
    """Charge the account, and post to the payee what is charged."""
    author = locked_account(connection, payee.account, movement.at)
    earned = earning(author, movement.amount)
    to = {"payee": payee.account, "earned": earned} if earned else {}
    what = {**movement.detail, **payee.detail, **to}
    author = replace(author, balance=author.balance + earned, updated_at=movement.at)
    if earned:
        set_account(connection, author)
    move(connection, account, replace(movement, description=payee.description, detail=what))
    if earned:
        got = Movement(
            TransferKind.EARNING,
            earned,
            movement.at,
            key=sale_key(movement.hold or ""),
            description=payee.description,
            detail=payee.detail,
        )
        move(connection, author, got)


def _let_go(connection: Connection, account: BillingAccount, hold: Hold, state: str, now: datetime) -> Hold:
    locked_budgets(connection, hold.budgets)
    add_to_budgets(connection, hold.budgets, held=-hold.amount)
    set_account(connection, replace(account, held=account.held - hold.amount, updated_at=now))
    gone = replace(hold, state=HoldState(state), resolved_at=now)
    _resolve(connection, gone, None)
    return gone


def _resolve(connection: Connection, hold: Hold, use_id: str | None) -> None:
    _RESOLVE.run(
        connection,
        {
            "of": hold.id,
            "new_state": hold.state.value,
            "new_posted": hold.posted,
            "new_resolved_at": hold.resolved_at,
            "new_use": use_id,
        },
    )


def _insert_use(connection: Connection, row: dict[str, Any]) -> None:
    try:
        _ADD_USE.run(connection, row)
    except IntegrityError as error:
        raise Conflict(f"use {row['id']} is stored already") from error
