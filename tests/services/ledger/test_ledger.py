"""The ledger service on the records in memory: who may spend, what is charged, what becomes of holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from atoll.domain.errors import Conflict, InvalidInput, Unavailable
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind
from atoll.domain.ledger import (
    Budget,
    BudgetExceeded,
    Hold,
    HoldState,
    InsufficientCredit,
    Payer,
    SpendingLimitExceeded,
    TransferKind,
    Use,
    UseKind,
)
from atoll.domain.money import micro_usd
from atoll.domain.price import Cost
from atoll.domain.principal import Principal
from atoll.records.ledger import UseQuery
from atoll.services.ledger import ledger as ledger_module
from atoll.services.ledger import settling as settling_module
from atoll.services.ledger.expiring import Expiring
from atoll.services.ledger.ledger import Ledger
from atoll.telemetry.metrics import Metrics
from atoll.testing.memory_records import MemoryRecords

ADMIN = Principal("admin", KeyKind.OWNER, frozenset(), admin=True)
PAYER = Payer("user_1")


class Shop:
    """A ledger, its records, and a clock that stands still."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 15, 12, tzinfo=UTC)
        self.records = MemoryRecords()
        self.metrics = Metrics()
        self.ledger = Ledger(self.records, clock=lambda: self.now, metrics=self.metrics.ledger)

    async def give(self, dollars: str, account: str = "user_1", **more: Any) -> None:
        await self.ledger.credit(ADMIN, account, micro_usd(dollars), **more)

    async def balance(self, account: str = "user_1") -> tuple[int, int]:
        found = await self.ledger.account(account)
        return found.balance, found.held

    async def events(self, action: str) -> list[Event]:
        return [one for one in await self.records.list_events() if one.action == action]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0


def use(cost: int, **fields: Any) -> Use:
    values: dict[str, Any] = {"kind": UseKind.MODEL, "at": datetime(2026, 3, 15, 12, tzinfo=UTC), **fields}
    return Use(new_id("use"), values.pop("account", "user_1"), cost=Cost(cost), **values)


async def held(shop: Shop, amount: int, payer: Payer = PAYER, lasts_s: float = 60) -> Hold:
    hold = await shop.ledger.hold(payer, amount, lasts_s=lasts_s)
    assert hold is not None
    return hold


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    async def at_once(_: float) -> None:
        return

    return lambda: monkeypatch.setattr(ledger_module.asyncio, "sleep", at_once)


async def test_a_new_account_may_not_begin_and_one_with_credit_may(shop: Shop) -> None:
    with pytest.raises(InsufficientCredit):
        await shop.ledger.check(PAYER)
    await shop.give("0.000001")
    await shop.ledger.check(PAYER)
    assert shop.count("ledger_refusals_total", code="insufficient_credit") == 1


async def test_check_says_limits_then_balance_then_budgets(shop: Shop) -> None:
    await shop.give("1")
    await shop.ledger.settle(await held(shop, 500, replace(PAYER, budgets=(Budget("task_1", 500),))), use(500))
    payer = replace(PAYER, budgets=(Budget("task_1", 500),))
    with pytest.raises(BudgetExceeded):
        await shop.ledger.check(payer)
    await shop.ledger.credit(ADMIN, "user_1", -(1_000_000 - 500))
    with pytest.raises(InsufficientCredit) as dry:
        await shop.ledger.check(payer)
    assert type(dry.value) is InsufficientCredit
    assert (dry.value.balance, dry.value.spent) == (0, 500)
    await shop.ledger.set_limits(ADMIN, "user_1", daily=500, monthly=None)
    with pytest.raises(SpendingLimitExceeded, match=r"^Daily spending limit exceeded \(\$0.0005\)$"):
        await shop.ledger.check(payer)
    await shop.ledger.set_limits(ADMIN, "user_1", daily=501, monthly=500)
    with pytest.raises(SpendingLimitExceeded, match="Monthly"):
        await shop.ledger.check(payer)
    shop.now += timedelta(days=31)
    with pytest.raises(InsufficientCredit):
        await shop.ledger.check(payer)


async def test_a_budget_is_what_it_is_at_the_time_of_the_hold(shop: Shop) -> None:
    await shop.give("1")
    small, large = (replace(PAYER, budgets=(Budget("key_000000000001", most),)) for most in (10, 20))
    await held(shop, 10, small)
    with pytest.raises(BudgetExceeded):
        await held(shop, 10, small)
    await held(shop, 10, large)


async def test_what_was_used_is_charged_and_the_rest_comes_back(shop: Shop) -> None:
    await shop.give("1")
    hold = await held(shop, 400_000)
    assert await shop.balance() == (1_000_000, 400_000)
    settled = await shop.ledger.settle(hold, use(103_080))
    assert settled is not None
    assert (settled.charged, settled.account.balance, await shop.balance()) == (103_080, 896_920, (896_920, 0))
    assert shop.count("ledger_transferred_micro_usd_total", kind="usage_deduction") == 103_080
    assert shop.count("ledger_holds_total", outcome="taken") == shop.count("ledger_holds_total", outcome="posted") == 1


async def test_use_beyond_the_balance_is_the_operators_loss(shop: Shop) -> None:
    await shop.give("0.00001")
    settled = await shop.ledger.settle(await held(shop, 10), use(25))
    assert settled is not None
    assert (settled.charged, settled.lost, await shop.balance()) == (10, 15, (0, 0))
    assert shop.count("ledger_lost_micro_usd_total") == 15


async def test_who_is_internal_is_metered_and_never_charged(shop: Shop) -> None:
    owner = Payer("key_0", internal=True, budgets=(Budget("task_1", 0),))
    await shop.ledger.check(owner)
    assert await shop.ledger.hold(owner, 10**9, lasts_s=60) is None
    assert await shop.ledger.settle(None, use(77, account="key_0", internal=True)) is None
    assert await shop.records.all_transfers() == []
    assert [one.cost.total for one in await shop.records.list_uses(UseQuery(internal=True))] == [77]
    await shop.ledger.void(None)


async def test_what_is_free_needs_no_hold_but_credit(shop: Shop) -> None:
    with pytest.raises(InsufficientCredit):
        await shop.ledger.hold(PAYER, 0, lasts_s=60)
    await shop.give("1")
    assert await shop.ledger.hold(PAYER, 0, lasts_s=60) is None
    assert await shop.ledger.settle(None, use(0)) is None


async def test_compute_is_charged_without_a_hold_once_for_each_use(shop: Shop) -> None:
    await shop.give("1")
    compute = use(30, kind=UseKind.COMPUTE, seconds=10.0)
    for _ in range(2):
        await shop.ledger.charge(compute)
    assert await shop.balance() == (999_970, 0)


async def test_credits_refunds_and_limits_have_their_events(shop: Shop) -> None:
    await shop.give("2", description="welcome", key="k")
    await shop.give("2", description="welcome", key="k")
    await shop.ledger.credit(ADMIN, "user_1", -500_000, description="mistake")
    await shop.ledger.charge(use(250_000))
    await shop.ledger.refund(ADMIN, "user_1", 250_000, key="r")
    account = await shop.ledger.set_limits(ADMIN, "user_1", daily=5, monthly=None)
    assert (account.balance, account.daily_limit, account.monthly_limit) == (1_500_000, 5, None)
    told = await shop.records.list_events()
    assert [(one.action, one.target, one.tenant, one.actor) for one in told] == [
        (f"billing.{verb}", "user_1", "user_1", "admin") for verb in ("credited", "debited", "refunded", "limited")
    ]
    assert told[1].detail == {"amount_micro_usd": 500_000, "description": "mistake"}
    with pytest.raises(Conflict):
        await shop.give("3", key="k")


@pytest.mark.parametrize("amount", [0, 10**15 + 1])
async def test_b05_an_amount_that_cannot_be_is_refused(shop: Shop, amount: int) -> None:
    with pytest.raises(InvalidInput):
        await shop.ledger.credit(ADMIN, "user_1", amount)
    with pytest.raises(InvalidInput):
        await shop.ledger.refund(ADMIN, "user_1", -amount)
    with pytest.raises(InvalidInput):
        await shop.ledger.set_limits(ADMIN, "user_1", daily=-1, monthly=None)


# what nobody settles


async def test_b06_a_hold_that_nobody_settles_comes_back_when_it_expires(shop: Shop) -> None:
    await shop.give("1")
    hold = await held(shop, 10, lasts_s=30)
    shop.now += timedelta(seconds=29)
    assert await shop.ledger.expire() == 0
    shop.now += timedelta(seconds=1)
    assert await shop.ledger.expire() == 1
    assert await shop.balance() == (1_000_000, 0)
    assert shop.count("ledger_holds_total", outcome="expired") == 1
    late = await shop.ledger.settle(hold, use(4))
    assert late is not None and (late.charged, late.hold.state) == (4, HoldState.EXPIRED)


async def test_b06_a_hold_of_a_task_that_is_gone_comes_back_before_that(shop: Shop) -> None:
    await shop.give("1")
    hold = await held(shop, 10, replace(PAYER, task="task_1"), lasts_s=86_400)
    assert await shop.ledger.expire() == 0, "the task may be about to be stored"
    shop.now += timedelta(seconds=ledger_module.TASK_GRACE_S)
    assert await shop.ledger.expire() == 1
    assert await shop.balance() == (1_000_000, 0)
    late = await shop.ledger.settle(hold, use(4))
    assert late is not None and late.charged == 4, "a server that was cut off from the database had its charge"


async def test_b10_a_charge_that_the_database_cannot_take_is_made_when_it_can(
    shop: Shop, impatient: Callable[[], None]
) -> None:
    impatient()
    await shop.give("1")
    hold = await held(shop, 50, lasts_s=10)
    shop.records.down = True
    with pytest.raises(Unavailable):
        await shop.ledger.settle(hold, use(40))
    with pytest.raises(Unavailable):
        await shop.ledger.charge(use(2))
    await shop.ledger.void(hold)
    shop.records.down = False
    shop.now += timedelta(seconds=60)
    await shop.ledger.expire()
    assert await shop.balance() == (999_958, 0)
    assert (await shop.records.get_hold(hold.id)).posted == 40  # type: ignore[union-attr]
    await shop.ledger.expire()
    assert await shop.balance() == (999_958, 0)


async def test_b10_an_answer_that_was_lost_is_not_charged_again(
    shop: Shop, impatient: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient()
    await shop.give("1")
    hold = await held(shop, 50)
    post, lost = shop.records.post_hold, [1, 1]

    async def without_answer(*arguments: Any, **named: Any) -> Any:
        settled = await post(*arguments, **named)
        if lost:
            lost.pop()
            raise Unavailable
        return settled

    monkeypatch.setattr(shop.records, "post_hold", without_answer)
    settled = await shop.ledger.settle(hold, use(40))
    assert settled is not None and settled.charged == 40
    assert await shop.balance() == (999_960, 0)
    assert shop.count("ledger_settled_late_total") == 1


@pytest.mark.parametrize("failed", range(1, settling_module.ATTEMPTS + 1))
async def test_b10_a_charge_that_waits_for_its_next_attempt_is_made_when_the_server_ends(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, failed: int
) -> None:
    await shop.give("1")
    waiting, sleeps = asyncio.Event(), 0

    async def sleeps_on(_: float) -> None:
        nonlocal sleeps
        sleeps += 1
        if sleeps == failed:
            waiting.set()
            await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(settling_module.asyncio, "sleep", sleeps_on)
    shop.records.down = True
    charging = asyncio.create_task(shop.ledger.charge(use(40)))
    stopped = asyncio.create_task(waiting.wait())
    await asyncio.wait({charging, stopped}, return_when=asyncio.FIRST_COMPLETED)
    shop.records.down = False
    await shop.ledger.close(within_s=0)
    await asyncio.gather(charging, return_exceptions=True)
    stopped.cancel()
    assert await shop.balance() == (999_960, 0)


async def test_b10_a_late_charge_that_fails_for_another_reason_keeps_no_other_waiting(
    shop: Shop, impatient: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient()
    await shop.give("1")
    shop.records.down = True
    for cost in (40, 2):
        with pytest.raises(Unavailable):
            await shop.ledger.charge(use(cost))
    shop.records.down = False
    add = shop.records.add_use

    async def faulty(wanted: Use, *arguments: Any, **more: Any) -> Any:
        if wanted.cost.total == 40:
            raise KeyError("a fault")
        return await add(wanted, *arguments, **more)

    monkeypatch.setattr(shop.records, "add_use", faulty)
    await shop.ledger.expire()
    assert await shop.balance() == (999_998, 0)
    monkeypatch.undo()
    await shop.ledger.expire()
    assert await shop.balance() == (999_958, 0)


async def test_b06_a_hold_that_settles_while_orphans_are_looked_for_is_not_told_as_expired(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.give("1")
    hold = await held(shop, 10, replace(PAYER, task="task_1"), lasts_s=86_400)
    shop.now += timedelta(seconds=ledger_module.TASK_GRACE_S)
    void = shop.records.void_hold

    async def just_settled(hold_id: str, *arguments: Any, **more: Any) -> Hold:
        await shop.ledger.settle(hold, use(4))
        return await void(hold_id, *arguments, **more)

    monkeypatch.setattr(shop.records, "void_hold", just_settled)
    assert await shop.ledger.expire() == 0
    assert shop.count("ledger_holds_total", outcome="expired") == 0
    assert await shop.balance() == (999_996, 0)


async def test_a_repeated_credit_is_counted_once(shop: Shop) -> None:
    for _ in range(2):
        await shop.give("1", key="once")
        shop.now += timedelta(seconds=1)
    assert await shop.balance() == (1_000_000, 0)
    assert shop.count("ledger_transfers_total", kind=TransferKind.PURCHASE.value) == 1
    assert shop.count("ledger_transferred_micro_usd_total", kind=TransferKind.PURCHASE.value) == 1_000_000


async def test_whoever_is_cancelled_while_it_settles_is_charged_all_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.give("1")
    hold = await held(shop, 50)
    post, go = shop.records.post_hold, asyncio.Event()

    async def slow(*arguments: Any, **named: Any) -> Any:
        await go.wait()
        return await post(*arguments, **named)

    monkeypatch.setattr(shop.records, "post_hold", slow)
    settling = asyncio.create_task(shop.ledger.settle(hold, use(40)))
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    go.set()
    await shop.ledger.close()
    assert await shop.balance() == (999_960, 0)


async def test_a_hold_whose_asker_was_cancelled_comes_back_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.give("1")
    take = shop.records.hold

    async def stored_and_not_told(*arguments: Any) -> Any:
        await take(*arguments)
        raise asyncio.CancelledError

    monkeypatch.setattr(shop.records, "hold", stored_and_not_told)
    with pytest.raises(asyncio.CancelledError):
        await shop.ledger.hold(PAYER, 50, lasts_s=86_400)
    await shop.ledger.close()
    assert await shop.balance() == (1_000_000, 0)


async def test_the_loop_gives_back_what_expired_and_charges_what_waits_when_it_closes(
    shop: Shop, impatient: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, expire = asyncio.Event(), shop.ledger.expire

    async def told() -> int:
        gone = await expire()
        passed.set()
        return gone

    monkeypatch.setattr(shop.ledger, "expire", told)
    await shop.give("1")
    late = await held(shop, 10)
    await held(shop, 10, lasts_s=0)
    loop = Expiring(shop.ledger, every_s=3_600)
    await loop.start()
    await asyncio.wait_for(passed.wait(), 5)
    assert await shop.balance() == (1_000_000, 10)
    impatient()
    shop.records.down = True
    with pytest.raises(Unavailable):
        await shop.ledger.settle(late, use(3))
    shop.records.down = False
    await loop.close()
    await loop.close()
    assert await shop.balance() == (999_997, 0)


# warnings


async def test_half_most_and_all_of_a_limit_are_warned_of_once_each(shop: Shop) -> None:
    await shop.give("1")
    await shop.ledger.set_limits(ADMIN, "user_1", daily=100, monthly=None)
    for cost in (49, 1, 20, 10, 19, 1):
        await shop.ledger.charge(use(cost))
    warned = await shop.events("budget.warning")
    assert [one.detail["percent"] for one in warned] == [50, 80, 100]
    assert [one.detail["spent_micro_usd"] for one in warned] == [50, 80, 100]
    assert {(one.target, one.tenant, one.detail["bound"]) for one in warned} == {("user_1", "user_1", "daily")}
    shop.now += timedelta(days=1)
    await shop.ledger.charge(use(60))
    assert len(await shop.events("budget.warning")) == 4, "a new day is a new window"
    assert shop.count("budget_warnings_total", bound="daily", percent="50") == 2


async def test_one_charge_may_pass_all_marks_of_several_budgets(shop: Shop) -> None:
    await shop.give("1")
    budgets = (Budget("task_1", 10), Budget("key_000000000001", 20))
    await shop.ledger.settle(await held(shop, 10, replace(PAYER, budgets=budgets)), use(10))
    told = [(one.target, one.detail["bound"], one.detail["percent"]) for one in await shop.events("budget.warning")]
    assert told == [
        ("task_1", "task", 50),
        ("task_1", "task", 80),
        ("task_1", "task", 100),
        ("key_000000000001", "key", 50),
    ]


def test_amounts_are_read_from_text() -> None:
    assert micro_usd("0.1") + micro_usd("0.2") == micro_usd(Decimal("0.3"))
