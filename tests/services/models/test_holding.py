"""Holding, with the real ledger: what budgets, limits and the balance pay of a call that does not say its length."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.ledger import Budget, BudgetExceeded, InsufficientCredit, Payer, SpendingLimitExceeded
from atoll.domain.price import ModelPrice
from atoll.domain.principal import Principal
from atoll.services.ledger.ledger import Ledger
from atoll.services.models.dialects import Dialect
from atoll.services.models.holding import Holding
from atoll.services.models.limits import ModelLimits
from atoll.services.models.refusals import CallRefused
from atoll.services.models.requests import ModelRequest
from atoll.testing.memory_records import MemoryRecords

OPERATOR = Principal("key_0123456789ab", KeyKind.OWNER, DEFAULT_SCOPES, "operator")
PAYER = Payer("key_a11ce0000000", task="task_1")
LIMITS = ModelLimits(queue_s=0.15)
PRICE = ModelPrice()


def asked(**more: object) -> ModelRequest:
    return ModelRequest(Dialect.RESPONSES, json.dumps({"model": "m", "input": "hi", **more}).encode(), LIMITS)


@pytest.fixture
async def ledger() -> Ledger:
    made = Ledger(MemoryRecords())
    await made.credit(OPERATOR, PAYER.account, 1_000_000)
    return made


async def test_a_budget_bounds_a_call_that_does_not_say(ledger: Ledger):
    payer = replace(PAYER, budgets=(Budget("task_1", 100_000),))
    hold, bound = await Holding(ledger, LIMITS).take(payer, asked(), PRICE)
    assert hold is not None and bound is not None
    assert bound >= 256 and hold.amount <= 100_000
    with pytest.raises(CallRefused, match="hold the credit"):
        await Holding(ledger, LIMITS).take(payer, asked(max_output_tokens=2_000), PRICE)
    with pytest.raises(BudgetExceeded):
        await Holding(ledger, LIMITS).take(payer, asked(max_output_tokens=20_000), PRICE)


async def test_a_budget_too_small_for_the_first_call_says_what_it_needs(ledger: Ledger):
    payer = replace(PAYER, budgets=(Budget("task_1", 5_000),))
    with pytest.raises(BudgetExceeded, match=r"has 0\.005 of 0\.005 dollars left: .* to set 0\.01\d* aside") as refused:
        await Holding(ledger, LIMITS).take(payer, asked(), PRICE)
    assert refused.value.spent == 0


async def test_a_daily_limit_bounds_it_too(ledger: Ledger):
    await ledger.set_limits(OPERATOR, PAYER.account, daily=50_000, monthly=None)
    hold, bound = await Holding(ledger, LIMITS).take(PAYER, asked(), PRICE)
    assert hold is not None and bound is not None and 1_000 < bound < 1_111
    await ledger.set_limits(OPERATOR, PAYER.account, daily=5_000, monthly=None)
    with pytest.raises(SpendingLimitExceeded):
        await Holding(ledger, LIMITS).take(PAYER, asked(), PRICE)


async def test_fewer_than_the_least_are_not_begun(ledger: Ledger):
    await ledger.credit(OPERATOR, PAYER.account, -(1_000_000 - 255 * 45))
    with pytest.raises(InsufficientCredit):
        await Holding(ledger, LIMITS).take(PAYER, asked(), PRICE)
    hold, bound = await Holding(ledger, LIMITS).take(PAYER, asked(max_output_tokens=100), PRICE)
    assert hold is not None and bound == 100


async def test_after_a_call_went_beyond_its_hold_the_account_has_one_at_a_time(ledger: Ledger):
    holding = Holding(ledger, LIMITS)
    holding.went_beyond(PAYER.account, 300_000)
    hold, _ = await holding.take(PAYER, asked(max_output_tokens=100), PRICE)
    assert hold is not None and hold.amount == 300_000
    holding.went_beyond(PAYER.account, 5_000_000)  # more than there is
    with pytest.raises(CallRefused, match="hold the credit"):
        await holding.take(PAYER, asked(max_output_tokens=100), PRICE)
    await ledger.void(hold)
    whole, bound = await holding.take(PAYER, asked(), PRICE)
    assert whole is not None and whole.amount == 1_000_000 and bound is not None and bound > 20_000
    await ledger.void(whole)
    other = replace(PAYER, account="key_b0b000000000")
    await ledger.credit(OPERATOR, other.account, 1_000_000)
    hold, _ = await holding.take(other, asked(max_output_tokens=100), PRICE)
    assert hold is not None and hold.amount < 10_000


async def test_an_internal_payer_needs_no_money_and_has_no_bound(ledger: Ledger):
    await ledger.credit(OPERATOR, PAYER.account, -1_000_000)
    with pytest.raises(InsufficientCredit):
        await Holding(ledger, LIMITS).take(PAYER, asked(), PRICE)
    assert await Holding(ledger, LIMITS).take(replace(PAYER, internal=True), asked(), PRICE) == (None, None)


async def test_a_model_that_costs_nothing_has_its_whole_bound(ledger: Ledger):
    free = ModelPrice(Decimal(0), Decimal(0))
    _, bound = await Holding(ledger, LIMITS).take(PAYER, asked(), free)
    assert bound == LIMITS.output_tokens_max
