"""Amounts at the edge: written digit by digit, and read to the millionth of a dollar or refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from atoll.domain.errors import InvalidInput
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, SpendingLimitExceeded
from atoll.domain.money import usd
from atoll.surfaces.execbox.errors import ExecboxDialect
from atoll.surfaces.money import amount_of, money_json
from atoll.surfaces.testbase.errors import TestbaseDialect


@pytest.mark.parametrize(
    ("micro", "text"),
    [(103080, "0.10308"), (9896920, "9.89692"), (1, "0.000001"), (-30, "-0.00003"), (10**16 + 1, "10000000000.000001"),
     (0, "0"), (100_000_000, "100")],
)  # fmt: skip
def test_b05_an_amount_is_written_exactly(micro: int, text: str) -> None:
    assert money_json({"a": [usd(micro)]}) == b'{"a":[' + text.encode() + b"]}"


def test_what_is_no_amount_is_written_as_everywhere() -> None:
    value = {"at": datetime(2026, 1, 31, tzinfo=UTC), "none": None, "text": 'a "quote" \u00e9', "n": 3, "yes": True}
    assert json.loads(money_json(value)) == value | {"at": "2026-01-31T00:00:00Z"}


@pytest.mark.parametrize("value", [float("nan"), "10", None, True, [], {}])
def test_b05_what_is_no_number_is_no_amount(value: Any) -> None:
    assert amount_of(value, field="amount") is None


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e30, float("inf"), 10**400, 0.0000001])
def test_b05_an_amount_that_cannot_be_kept_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidInput, match="amount"):
        amount_of(value, field="amount")


def test_b05_numbers_become_micro_dollars() -> None:
    assert [amount_of(one, field="amount") for one in (100, 0.1, -2.5, 0.000001, 0)] == [
        10**8,
        10**5,
        -25 * 10**5,
        1,
        0,
    ]


LIMIT = SpendingLimitExceeded(
    "Daily spending limit exceeded ($10)",
    daily_usage=10_000_000, daily_limit=10_000_000, monthly_usage=12_500_000, monthly_limit=None, retry_after_s=60,
)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            InsufficientCredit(balance=0, spent=103080),
            402,
            {
                "error": "Insufficient Credits",
                "message": "Your credit balance is insufficient. Please add credits to continue.",
                "details": {"currentBalance": 0, "totalSpent": Decimal("0.10308")},
            },
        ),
        (
            LIMIT,
            429,
            {
                "error": "Spending Limit Exceeded",
                "message": "Daily spending limit exceeded ($10)",
                "details": {
                    "dailyUsage": 10, "dailyLimit": 10, "monthlyUsage": Decimal("12.5"), "monthlyLimit": None,
                },
            },
        ),
        (
            BudgetExceeded(subject="task_1", limit=2_000_000, spent=1_500_000),
            402,
            {
                "error": "Budget Exceeded",
                "message": "The budget is spent.",
                "details": {"budget": "task_1", "limit": 2, "spent": Decimal("1.5")},
            },
        ),
    ],
)  # fmt: skip
def test_what_is_refused_for_money_has_the_protocols_body(error: Any, status: int, body: dict[str, Any]) -> None:
    answer = TestbaseDialect().error(error)
    assert (answer.status_code, json.loads(bytes(answer.body), parse_float=Decimal)) == (status, body)
    assert answer.headers.get("retry-after") == ("60" if error is LIMIT else None)


def test_other_surfaces_say_402_and_429_too() -> None:
    told = [ExecboxDialect().error(one) for one in (InsufficientCredit(), LIMIT)]
    assert [(one.status_code, json.loads(bytes(one.body))["code"]) for one in told] == [
        (402, "INSUFFICIENT_CREDIT"),
        (429, "SPENDING_LIMIT_EXCEEDED"),
    ]
