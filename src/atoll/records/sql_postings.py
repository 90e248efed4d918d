"""What moving money is made of in SQL: an account's lock, what it spent, a transfer with all sums that it changes.

`sql_ledger.py` and `sql_holds.py` call it inside their transactions. Locks are taken in one order, so that nobody
waits in a circle: one account, its budgets by name, the ledger's end, the head of a chain of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from atoll.domain.ledger import BillingAccount, BudgetUse, Transfer, TransferKind
from atoll.domain.ledger_rules import SpentSoFar, day_of, legs, month_of
from atoll.records.ledger_rows import account_of, transfer_row
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.schema import ledger_accounts, ledger_budgets, ledger_days, ledger_transfers
from atoll.records.sql_store import lock_owner, put, storable

_accounts, _days, _budgets = ledger_accounts.c, ledger_days.c, ledger_budgets.c

_PUT_ACCOUNT = put(ledger_accounts)
_LOCK_ACCOUNT = Prepared(select(ledger_accounts).where(_accounts.id == bindparam("of")).with_for_update())
_SET_ACCOUNT = Prepared(
    update(ledger_accounts)
    .where(_accounts.id == bindparam("of"))
    .values({name: bindparam(f"new_{name}") for name in ("balance", "held", "spent", "updated_at")})
)
_windows: Any = select(
    func.coalesce(func.sum(_days.spent), 0).label("month"),
    func.coalesce(func.sum(_days.spent).filter(_days.day == bindparam("today")), 0).label("day"),
)
_SPENT = Prepared(_windows.where(_days.account == bindparam("of"), _days.day >= bindparam("since")))
_LAST = Prepared(select(func.coalesce(func.max(ledger_transfers.c.id), 0).label("last")))
_ADD_TRANSFER = Prepared(insert(ledger_transfers).inline())
_PUT_BUDGET = put(ledger_budgets)
_LOCK_BUDGET = Prepared(select(ledger_budgets).where(_budgets.subject == bindparam("of")).with_for_update())


def _adding(table: Any, *names: str) -> Prepared:
    """The insert of a row; where its key is taken, its figures are added to those that are there."""
    key = [column.name for column in table.primary_key]

    def made(kind: Any) -> Insert:
        new = kind(table).inline()
        return new.on_conflict_do_update(
            index_elements=key, set_={name: table.c[name] + new.excluded[name] for name in names}
        )

    return Prepared(made(sqlite.insert), on_postgres=made(postgresql.insert))


_ADD_TO_SYSTEM = _adding(ledger_accounts, "balance")
_ADD_TO_DAY = _adding(ledger_days, "spent")
_ADD_TO_BUDGET = _adding(ledger_budgets, "spent", "held")


@dataclass(frozen=True, slots=True)
class Movement:
    """One transfer, before it has a number."""

    kind: TransferKind
    amount: int
    at: datetime
    key: str | None = None
    hold: str | None = None
    description: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    budgets: Sequence[str] = ()


def locked_account(connection: Connection, account: str, now: datetime) -> BillingAccount:
    """The account, made when there is none; nobody else moves its money until the transaction ends."""
    wanted = {"of": account}
    row = _LOCK_ACCOUNT.first(connection, wanted)
    if row is None:
        _PUT_ACCOUNT.run(connection, _empty_account(account, now))
        row = _LOCK_ACCOUNT.first(connection, wanted) or {}
    return account_of(row)


def spent_so_far(connection: Connection, account: BillingAccount, now: datetime) -> SpentSoFar:
    """What it was charged today and this month; nobody counts for one without limits."""
    if account.daily_limit is None and account.monthly_limit is None:
        return SpentSoFar(now, 0, 0)
    wanted = {"of": account.id, "today": day_of(now), "since": month_of(now)}
    row = _SPENT.first(connection, wanted) or {"day": 0, "month": 0}
    return SpentSoFar(now, int(row["day"]), int(row["month"]))


def set_account(connection: Connection, account: BillingAccount) -> None:
    """Store its figures, under its lock."""
    figures = {f"new_{name}": getattr(account, name) for name in ("balance", "held", "spent", "updated_at")}
    _SET_ACCOUNT.run(connection, figures | {"of": account.id})


def locked_budgets(connection: Connection, subjects: Iterable[str]) -> dict[str, BudgetUse]:
    """What was spent and is held under each of them; nobody else changes that until the transaction ends."""
    found: dict[str, BudgetUse] = {}
    for subject in sorted(set(subjects)):
        row = _LOCK_BUDGET.first(connection, {"of": subject})
        if row is None:
            _PUT_BUDGET.run(connection, storable({"subject": subject, "spent": 0, "held": 0}))
            row = _LOCK_BUDGET.first(connection, {"of": subject}) or {"spent": 0, "held": 0}
        found[subject] = BudgetUse(subject, row["spent"], row["held"])
    return found


def add_to_budgets(connection: Connection, subjects: Iterable[str], *, spent: int = 0, held: int = 0) -> None:
    """Count it under each of them."""
    for subject in sorted(set(subjects)):
        _ADD_TO_BUDGET.run(connection, {"subject": subject, "spent": spent, "held": held})


def move(connection: Connection, account: BillingAccount, movement: Movement) -> Transfer:
    """Append the transfer and change the other side's balance. `account` has its figures of afterwards, which the
    caller stores before, as it does with the budgets: here begins the part that all payers wait for."""
    debit, credit = legs(movement.kind, account.id)
    if movement.kind is TransferKind.USAGE:
        day = {"account": account.id, "day": day_of(movement.at), "spent": movement.amount}
        _ADD_TO_DAY.run(connection, day)
    lock_owner(connection, Lock.LEDGER, "")
    number = (_LAST.first(connection, {}) or {"last": 0})["last"] + 1
    detail = dict(movement.detail) | ({"budgets": sorted(movement.budgets)} if movement.budgets else {})
    transfer = Transfer(
        id=number,
        debit=debit,
        credit=credit,
        amount=movement.amount,
        kind=movement.kind,
        account=account.id,
        balance_after=account.balance,
        at=movement.at,
        key=movement.key,
        hold=movement.hold,
        description=movement.description,
        detail=detail,
    )
    _ADD_TRANSFER.run(connection, storable(transfer_row(transfer)))
    other, amount = (debit, -movement.amount) if credit == account.id else (credit, movement.amount)
    _ADD_TO_SYSTEM.run(connection, _empty_account(other, movement.at) | {"balance": amount})
    return transfer


def _empty_account(account: str, now: datetime) -> dict[str, Any]:
    return storable(
        {
            "id": account,
            "balance": 0,
            "held": 0,
            "spent": 0,
            "daily_limit": None,
            "monthly_limit": None,
            "created_at": now,
            "updated_at": now,
        }
    )
