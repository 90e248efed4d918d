"""What may be held, what a charge takes and between whom money moves: the rules by which every store decides.

The stores call it in the transaction that moves the money, so that what they looked at is still true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from atoll.domain.errors import Conflict, InvalidInput
from atoll.domain.ledger import (
    EARNED,
    ISSUED,
    SYSTEM_ACCOUNTS,
    BillingAccount,
    Budget,
    BudgetExceeded,
    BudgetUse,
    Hold,
    HoldState,
    InsufficientCredit,
    NewHold,
    NewTransfer,
    Payee,
    SpendingLimitExceeded,
    Spent,
    Transfer,
    TransferKind,
)
from atoll.domain.money import AMOUNT_MAX, usd

DAILY, MONTHLY = "daily", "monthly"


def day_of(now: datetime) -> str:
    """2026-03-01, in UTC: the window of the daily limit."""
    return now.astimezone(UTC).date().isoformat()


def month_of(now: datetime) -> str:
    """The first day of its month, in UTC: days from here on are in the window of the monthly limit."""
    return now.astimezone(UTC).date().replace(day=1).isoformat()


@dataclass(frozen=True, slots=True)
class SpentSoFar:
    """What an account was charged in the windows that `now` lies in."""

    now: datetime
    day: int
    month: int


def legs(kind: TransferKind, account: str) -> tuple[str, str]:
    """Who gives and who gets."""
    if kind is TransferKind.PURCHASE:
        return ISSUED, account
    if kind in (TransferKind.REFUND, TransferKind.EARNING):
        return EARNED, account
    return account, ISSUED if kind is TransferKind.ADJUSTMENT else EARNED


def check_name(account: str) -> None:
    """InvalidInput for the system's own accounts: nobody pays from those."""
    if account in SYSTEM_ACCOUNTS or not account:
        raise InvalidInput("that is no payer's account", field="account")


def check_amount(amount: int) -> None:
    """InvalidInput unless it can be moved."""
    if not 0 < amount <= AMOUNT_MAX:
        raise InvalidInput(f"amount must be above 0 and at most {AMOUNT_MAX // 1_000_000} dollars", field="amount")


def balance_after(account: BillingAccount, wanted: NewTransfer) -> int:
    """The payer's balance when that has moved. InsufficientCredit when more is taken than is available."""
    if legs(wanted.kind, wanted.account)[1] == wanted.account:
        if account.balance + wanted.amount > AMOUNT_MAX:
            raise InvalidInput(
                f"amount would make the balance more than {AMOUNT_MAX // 1_000_000} dollars", field="amount"
            )
        return account.balance + wanted.amount
    if wanted.amount > account.available:
        held = f", and {usd(account.held):f} of it are held" if account.held else ""
        raise InsufficientCredit(
            f"The balance is {usd(account.balance):f} dollars{held}: {usd(wanted.amount):f} cannot be taken.",
            balance=account.balance,
            spent=account.spent,
        )
    return account.balance - wanted.amount


def check_payee(payer: BillingAccount, payee: Payee | None) -> None:
    """InvalidInput for one that is the payer, or the system's own account."""
    if payee is not None:
        check_name(payee.account)
        if payee.account == payer.id:
            raise InvalidInput("nobody pays themselves", field="payee")


def earning(payee: BillingAccount, charged: int) -> int:
    """How much of a charge its payee gets: all, unless the balance would be more than one can be."""
    return max(0, min(charged, AMOUNT_MAX - payee.balance))


def sale_key(hold_id: str) -> str:
    """The idempotency key of what a payee gets of a hold: a second posting would break a unique index."""
    return f"sale:{hold_id}"


def check_refund(account: BillingAccount, refunded: int, wanted: NewTransfer) -> None:
    """InvalidInput when more would be given back than was ever charged, less what was given back before."""
    left = max(0, account.spent - refunded)
    if wanted.kind is TransferKind.REFUND and wanted.amount > left:
        raise InvalidInput(
            f"amount must be at most {usd(left):f} dollars: no more than that was charged and not given back yet",
            field="amount",
        )


def check_repeated(first: Transfer, wanted: NewTransfer) -> None:
    """Conflict when a key was used for something else."""
    if (first.amount, first.kind) != (wanted.amount, wanted.kind):
        raise Conflict("this idempotency key was used for another amount or kind of transfer")


def check_limits(account: BillingAccount, spent: SpentSoFar, amount: int) -> None:
    """SpendingLimitExceeded when that much more would pass a limit; of an amount of 0, when one is used up."""
    for word, used, limit, moves_on in (
        ("Daily", spent.day, account.daily_limit, _next_day(spent.now)),
        ("Monthly", spent.month, account.monthly_limit, _next_month(spent.now)),
    ):
        if limit is None or (used + account.held + amount <= limit if amount else used < limit):
            continue
        raise SpendingLimitExceeded(
            f"{word} spending limit exceeded (${usd(limit):f})",
            daily_usage=spent.day,
            daily_limit=account.daily_limit,
            monthly_usage=spent.month,
            monthly_limit=account.monthly_limit,
            retry_after_s=max(1, int((moves_on - spent.now).total_seconds()) + 1),
        )


def check_balance(account: BillingAccount, amount: int) -> None:
    """InsufficientCredit when that much is not available; of an amount of 0, when the balance is spent."""
    if account.available < amount if amount else account.balance <= 0:
        raise InsufficientCredit(balance=account.balance, spent=account.spent)


def check_budgets(budgets: Iterable[Budget], uses: Mapping[str, BudgetUse], amount: int) -> None:
    """BudgetExceeded when that much more would pass one; of an amount of 0, when one is used up."""
    for budget in budgets:
        use = uses.get(budget.subject, BudgetUse(budget.subject, 0, 0))
        if use.spent + use.held + amount <= budget.limit if amount else use.spent < budget.limit:
            continue
        held = f", and {usd(use.held):f} are held" if use.held else ""
        if use.spent < budget.limit:
            left = usd(budget.limit - use.spent)
            said = f"has {left:f} of {usd(budget.limit):f} dollars left{held}: too little to set {usd(amount):f} aside."
        else:
            said = f"is spent: {usd(use.spent):f} of {usd(budget.limit):f} dollars{held}."
        raise BudgetExceeded(
            f"The budget of {budget.subject} {said}",
            subject=budget.subject,
            limit=budget.limit,
            spent=use.spent,
        )


def new_hold(wanted: NewHold, now: datetime) -> Hold:
    """As it is stored when nothing speaks against it."""
    subjects = tuple(budget.subject for budget in wanted.budgets)
    if len(set(subjects)) != len(subjects):
        raise InvalidInput("each budget counts once", field="budgets")
    return Hold(
        wanted.id,
        wanted.account,
        wanted.amount,
        HoldState.PENDING,
        now,
        wanted.expires_at,
        subjects,
        wanted.task,
    )


def chargeable(
    account: BillingAccount, hold: Hold, cost: int, budgets: Iterable[Budget], uses: Mapping[str, BudgetUse]
) -> int:
    """How much of a cost the account pays: what was held, and of what is available as much as the budgets have left;
    never more than it has. `uses` are those of the budgets, with the hold still in them."""
    left = account.available
    for budget in budgets:
        use = uses.get(budget.subject, BudgetUse(budget.subject, 0, 0))
        left = min(left, budget.limit - use.spent - use.held)
    held = hold.amount if hold.state is HoldState.PENDING else 0
    return min(cost, max(0, account.balance), held + max(0, left))


def spent_bounds(account: BillingAccount, before: SpentSoFar, charged: int) -> list[Spent]:
    """How far the account's own limits were and are used up."""
    found: list[Spent] = []
    if account.daily_limit is not None:
        found.append(Spent(DAILY, account.daily_limit, before.day, before.day + charged))
    if account.monthly_limit is not None:
        found.append(Spent(MONTHLY, account.monthly_limit, before.month, before.month + charged))
    return found


def _next_day(now: datetime) -> datetime:
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
