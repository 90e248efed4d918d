"""Compute is charged by the second, each second once, to whoever pays; who cannot pay is warned, then ended."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain.errors import Unavailable
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.key import KeyKind
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit
from atoll.services.charging.compute import WARNING
from atoll.services.charging.spending import PricedSpending
from atoll.services.ledger.prices import Prices
from tests.services.charging.conftest import NOW, PAYER, Till


async def test_a_minute_is_charged_when_it_is_over_and_the_rest_at_the_end(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    sandbox = await till.sandbox()
    assert [await till.ran(sandbox, seconds) for seconds in (30, 59.9, 60, 90, 121)] == [0, 0, 1, 0, 1]
    assert await till.charged() == 1210
    await till.ends(sandbox, 130.5)
    assert await till.compute.run() == 1
    assert await till.charged() == 1305
    assert await till.compute.run() == 0
    assert sorted(one.seconds for one in await till.uses()) == [9.5, 60.0, 61.0]


async def test_no_second_is_charged_twice_after_a_restart(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    sandbox = await till.sandbox()
    await till.ran(sandbox, 100)
    till.restart()
    assert await till.ran(sandbox, 100) == 0
    assert await till.ran(sandbox, 170) == 1
    assert await till.charged() == 1700


async def test_an_end_that_a_crash_left_uncharged_is_charged_at_the_next_start(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    sandbox = await till.sandbox()
    await till.ran(sandbox, 60)
    await till.ends(sandbox, 75)
    till.seconds.left.clear()
    till.restart()
    await till.compute.start()
    assert await till.compute.run() == 1
    assert await till.charged() == 750


async def test_a_charge_whose_answer_was_lost_is_not_made_again(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    await till.key()
    await till.give(1_000_000)
    sandbox = await till.sandbox()
    charge = till.ledger.charge

    async def lost(*arguments: Any, **more: Any) -> Any:
        await charge(*arguments, **more)
        raise Unavailable

    monkeypatch.setattr(till.ledger, "charge", lost)
    await till.ran(sandbox, 60)
    monkeypatch.undo()
    await till.ran(sandbox, 130)
    assert await till.charged() == 1300


async def test_what_has_no_price_costs_nothing_and_leaves_no_use(till: Till) -> None:
    till.ledger.prices = Prices()
    await till.key()
    sandbox = await till.sandbox()
    assert await till.ran(sandbox, 1000) == 0
    assert await till.uses() == []
    await PricedSpending(till.records, till.ledger).check_compute(PAYER)


async def test_internal_keys_are_metered_and_never_charged(till: Till) -> None:
    await till.key(kind=KeyKind.INTERNAL)
    await till.ran(await till.sandbox(), 60)
    (use,) = await till.uses()
    assert (use.internal, use.cost.total, use.charged) == (True, 600, 0)
    assert await till.charged() == 0
    assert till.seconds.ended == []
    await PricedSpending(till.records, till.ledger).check_compute(PAYER)


async def test_who_has_nothing_left_is_warned_and_ended_a_minute_later(till: Till) -> None:
    await till.key()
    await till.give(700)
    sandbox = await till.sandbox()
    await till.ran(sandbox, 60)
    assert till.seconds.ended == []
    await till.ran(sandbox, 120)
    warned = [one for one in await till.records.list_events(tenant=PAYER, limit=100) if one.action == WARNING]
    assert [(one.target, one.detail["ends_in_s"]) for one in warned] == [(sandbox.id, 60)]
    assert till.seconds.ended == []
    await till.ran(sandbox, 180)
    assert till.seconds.ended == [(sandbox.id, "insufficient_credit")]
    assert (await till.ledger.account(PAYER)).balance == 0


async def test_who_is_given_credits_after_the_warning_goes_on(till: Till) -> None:
    await till.key()
    await till.give(600)
    sandbox = await till.sandbox()
    await till.ran(sandbox, 60)
    await till.give(10_000)
    await till.ran(sandbox, 120)
    await till.ran(sandbox, 180)
    assert till.seconds.ended == []


async def test_an_empty_account_gets_no_new_sandbox(till: Till) -> None:
    await till.key()
    spending = PricedSpending(till.records, till.ledger)
    with pytest.raises(InsufficientCredit):
        await spending.check_compute(PAYER)
    await till.give(1)
    await spending.check_compute(PAYER)


async def test_a_groups_sandbox_is_paid_by_whose_key_made_it(till: Till) -> None:
    group = "grp_" + "0" * 24
    await till.key()
    crew, first = Group(group, "crew", NOW, NOW), Member(group, PAYER, Role.ADMIN, NOW)
    await till.records.add_group(crew, first, Event("group.created", group, group, actor=PAYER))
    await till.give(10_000)
    await till.ran(await till.sandbox(owner=group, credential=PAYER), 60)
    (use,) = await till.uses()
    assert (use.account, use.workspace_owner, use.charged) == (PAYER, group, 600)


async def test_a_key_whose_budget_is_spent_gets_no_sandbox(till: Till) -> None:
    await till.key()
    await till.give(10_000)
    await till.key("key_b00000000000", owner=PAYER, parent=PAYER, budget_micro_usd=0)
    spending = PricedSpending(till.records, till.ledger)
    await spending.check_compute(PAYER)
    with pytest.raises(BudgetExceeded):
        await spending.check_compute(PAYER, "key_b00000000000")


async def test_a_database_that_is_down_ends_the_pass_and_the_next_one_charges_all(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.key()
    await till.give(1_000_000)
    for n in range(3):
        done = await till.sandbox(f"sess_00000000000{n}")
        await till.ends(done, 10)
    tries = 0

    async def down(*_: Any, **__: Any) -> Any:
        nonlocal tries
        tries += 1
        raise Unavailable

    monkeypatch.setattr(till.ledger, "charge", down)
    assert (await till.compute.run(), tries) == (0, 1)
    monkeypatch.undo()
    assert await till.compute.run() == 3
    assert await till.charged() == 300
