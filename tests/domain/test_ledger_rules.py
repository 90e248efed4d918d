"""The rules of money at their edges: what just fits and what is one micro-dollar too much."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from atoll.domain import ledger_rules as rules
from atoll.domain.errors import Conflict, InvalidInput
from atoll.domain.ledger import (
    EARNED,
    ISSUED,
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
from atoll.domain.money import AMOUNT_MAX

NOW = datetime(2026, 3, 31, 23, 59, 58, tzinfo=UTC)
K = TransferKind
DOLLAR = 1_000_000


def account(
    balance: int = 0, held: int = 0, spent: int = 0, day: int | None = None, month: int | None = None
) -> BillingAccount:
    return BillingAccount("acc", balance, held, spent, day, month, NOW, NOW)


def spent_so_far(day: int, month: int) -> rules.SpentSoFar:
    return rules.SpentSoFar(NOW, day, month)


def moved(balance: int, kind: TransferKind, amount: int, held: int = 0) -> int:
    return rules.balance_after(account(balance, held), NewTransfer("acc", kind, amount))


def test_each_kind_of_transfer_has_its_two_sides() -> None:
    assert {kind: rules.legs(kind, "acc") for kind in K} == {
        K.PURCHASE: (ISSUED, "acc"),
        K.REFUND: (EARNED, "acc"),
        K.EARNING: (EARNED, "acc"),
        K.ADJUSTMENT: ("acc", ISSUED),
        K.USAGE: ("acc", EARNED),
    }


@pytest.mark.parametrize("name", ["", ISSUED, EARNED])
def test_the_systems_accounts_are_nobodys(name: str) -> None:
    with pytest.raises(InvalidInput):
        rules.check_name(name)
    rules.check_name("acc")


def test_an_amount_is_above_nothing_and_at_most_the_most() -> None:
    for amount in (1, AMOUNT_MAX):
        rules.check_amount(amount)
    for amount in (-1, 0, AMOUNT_MAX + 1):
        with pytest.raises(InvalidInput, match="at most 1000000000 dollars"):
            rules.check_amount(amount)


def test_a_balance_may_reach_the_most_and_nothing_and_pass_neither() -> None:
    assert moved(5, K.PURCHASE, AMOUNT_MAX - 5) == AMOUNT_MAX
    with pytest.raises(InvalidInput, match="balance more than 1000000000 dollars"):
        moved(6, K.REFUND, AMOUNT_MAX - 5)
    assert moved(7, K.ADJUSTMENT, 4, held=3) == 3
    with pytest.raises(InsufficientCredit, match=r"is 0.000007 dollars, and 0.000003 of it are held: 0.000005 cannot"):
        moved(7, K.ADJUSTMENT, 5, held=3)
    with pytest.raises(InsufficientCredit, match=r"is 0.000004 dollars: 0.000005 cannot"):
        moved(4, K.ADJUSTMENT, 5)


def test_nobody_pays_themselves_or_the_system() -> None:
    rules.check_payee(account(), None)
    rules.check_payee(account(), Payee("other"))
    for name in ("acc", ISSUED):
        with pytest.raises(InvalidInput):
            rules.check_payee(account(), Payee(name))


def test_a_payee_gets_all_that_its_balance_can_hold() -> None:
    assert rules.earning(account(AMOUNT_MAX - 10), 10) == 10
    assert rules.earning(account(AMOUNT_MAX - 10), 11) == 10
    assert rules.earning(account(AMOUNT_MAX), 1) == 0


def test_no_more_is_given_back_than_was_charged_and_not_given_back() -> None:
    rules.check_refund(account(spent=10), 4, NewTransfer("acc", K.REFUND, 6))
    with pytest.raises(InvalidInput, match=r"at most 0\.000006 dollars"):
        rules.check_refund(account(spent=10), 4, NewTransfer("acc", K.REFUND, 7))
    rules.check_refund(account(spent=10), 4, NewTransfer("acc", K.PURCHASE, 7))


@pytest.mark.parametrize(("kind", "amount"), [(K.REFUND, 5), (K.PURCHASE, 6)])
def test_a_key_is_for_one_amount_of_one_kind(kind: TransferKind, amount: int) -> None:
    first = Transfer(1, ISSUED, "acc", 5, K.PURCHASE, "acc", 5, NOW, "k")
    rules.check_repeated(first, NewTransfer("acc", K.PURCHASE, 5, "k"))
    with pytest.raises(Conflict):
        rules.check_repeated(first, NewTransfer("acc", kind, amount, "k"))


def test_limits_count_what_was_spent_and_is_held() -> None:
    rules.check_limits(account(), spent_so_far(100, 100), 100)  # without limits
    limited = account(held=20, day=100, month=100)
    rules.check_limits(limited, spent_so_far(70, 0), 10)
    with pytest.raises(SpendingLimitExceeded, match=r"^Daily spending limit exceeded \(\$0.0001\)$") as daily:
        rules.check_limits(limited, spent_so_far(71, 0), 10)
    assert daily.value.retry_after_s == 3
    with pytest.raises(SpendingLimitExceeded, match=r"^Monthly spending") as monthly:
        rules.check_limits(limited, spent_so_far(0, 71), 10)
    assert monthly.value.retry_after_s == 3
    assert (monthly.value.monthly_usage, monthly.value.monthly_limit) == (71, 100)


def test_a_limit_that_is_used_up_refuses_what_costs_nothing_too() -> None:
    limited = account(held=50, day=100, month=100)  # what is held may still be given back
    rules.check_limits(limited, spent_so_far(99, 99), 0)
    with pytest.raises(SpendingLimitExceeded):
        rules.check_limits(limited, spent_so_far(100, 0), 0)


@pytest.mark.parametrize(
    ("now", "limits", "wait_s"),
    [
        (datetime(2026, 2, 10, 12, tzinfo=UTC), {"day": 0}, 12 * 3600 + 1),
        (datetime(2026, 2, 10, 12, tzinfo=UTC), {"month": 0}, 18.5 * 86_400 + 1),
        (datetime(2026, 12, 31, 23, tzinfo=UTC), {"month": 0}, 3601),
        (datetime(2026, 3, 1, 1, tzinfo=UTC).astimezone(), {"day": 0}, 23 * 3600 + 1),
    ],
)
def test_a_limit_says_when_its_window_ends(now: datetime, limits: dict[str, int], wait_s: float) -> None:
    with pytest.raises(SpendingLimitExceeded) as refused:
        rules.check_limits(account(**limits), rules.SpentSoFar(now, 0, 0), 1)
    assert refused.value.retry_after_s == wait_s


def test_windows_are_of_utc() -> None:
    late = datetime.fromisoformat("2026-03-31T22:30:00-02:00")
    assert (rules.day_of(late), rules.month_of(late)) == ("2026-04-01", "2026-04-01")


def test_a_balance_covers_what_is_held_and_what_is_asked_for() -> None:
    rules.check_balance(account(10, held=4), 6)
    with pytest.raises(InsufficientCredit):
        rules.check_balance(account(10, held=4), 7)
    rules.check_balance(account(1, held=1), 0)
    with pytest.raises(InsufficientCredit):
        rules.check_balance(account(0), 0)


BUDGET = (Budget("b", 10 * DOLLAR),)


@pytest.mark.parametrize(
    ("spent", "held", "amount", "said"),
    [
        (0, 0, 10 * DOLLAR, None),
        (4 * DOLLAR, 5 * DOLLAR, DOLLAR, None),
        (9 * DOLLAR, 9 * DOLLAR, 0, None),
        (4 * DOLLAR, 0, 7 * DOLLAR, "has 6 of 10 dollars left: too little to set 7 aside"),
        (4 * DOLLAR, 5 * DOLLAR, 2 * DOLLAR, "has 6 of 10 dollars left, and 5 are held: too little to set 2 aside"),
        (10 * DOLLAR, 0, 1, "is spent: 10 of 10 dollars."),
        (10 * DOLLAR, DOLLAR, 0, "is spent: 10 of 10 dollars, and 1 are held."),
    ],
)
def test_a_budget_counts_what_was_spent_and_is_held(spent: int, held: int, amount: int, said: str | None) -> None:
    uses = {"b": BudgetUse("b", spent, held)}
    if said is None:
        rules.check_budgets(BUDGET, uses, amount)
    else:
        with pytest.raises(BudgetExceeded) as refused:
            rules.check_budgets(BUDGET, uses, amount)
        assert said in refused.value.message and refused.value.spent == spent
    rules.check_budgets(BUDGET, {}, 10 * DOLLAR)  # one that nothing was spent of
    with pytest.raises(BudgetExceeded):
        rules.check_budgets([*BUDGET, Budget("c", 1)], {}, 2)


def test_a_hold_names_each_budget_once() -> None:
    wanted = NewHold("hold_1", "acc", 5, NOW + timedelta(hours=1), (Budget("a", 1), Budget("b", 1)), "task_1")
    made = rules.new_hold(wanted, NOW)
    assert made == Hold("hold_1", "acc", 5, HoldState.PENDING, NOW, wanted.expires_at, ("a", "b"), "task_1")
    with pytest.raises(InvalidInput):
        rules.new_hold(replace(wanted, budgets=(Budget("a", 1), Budget("a", 2))), NOW)


@pytest.mark.parametrize(
    ("balance", "held", "state", "cost", "uses", "charged"),
    [
        (100, 10, HoldState.PENDING, 8, {}, 8),  # less than was held
        (100, 10, HoldState.PENDING, 60, {}, 60),  # what is available besides
        (100, 95, HoldState.PENDING, 60, {}, 15),  # what others hold is theirs
        (100, 10, HoldState.EXPIRED, 60, {}, 60),
        (100, 95, HoldState.EXPIRED, 60, {}, 5),  # nothing of it is left
        (5, 10, HoldState.PENDING, 60, {}, 5),  # never below nothing
        (-5, 10, HoldState.PENDING, 60, {}, 0),
        (100, 10, HoldState.PENDING, 60, {"b": BudgetUse("b", 30, 10)}, 20),  # the budget's 50: 30 spent, 10 held
        (100, 10, HoldState.PENDING, 60, {"b": BudgetUse("b", 60, 10)}, 10),  # it is passed: what was held is paid
    ],
)
def test_a_charge_takes_what_was_held_and_what_balance_and_budgets_have_left(
    balance: int, held: int, state: HoldState, cost: int, uses: dict[str, BudgetUse], charged: int
) -> None:
    hold = Hold("hold_1", "acc", 10, state, NOW, NOW)
    budgets = [Budget("b", 50)] if uses else [Budget("b", AMOUNT_MAX)]
    assert rules.chargeable(account(balance, held), hold, cost, budgets, uses) == charged


def test_the_bounds_of_an_account_are_those_that_it_has() -> None:
    before = spent_so_far(3, 30)
    assert rules.spent_bounds(account(day=10, month=100), before, 5) == [
        Spent(rules.DAILY, 10, 3, 8),
        Spent(rules.MONTHLY, 100, 30, 35),
    ]
    assert rules.spent_bounds(account(), before, 5) == []
