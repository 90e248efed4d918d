"""Compute is charged by the second, each second once, to whoever pays; who cannot pay is warned, then ended."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.domain.errors import Conflict, Unavailable
from atoll.domain.event import Event
from atoll.domain.group import Group, Member, Role
from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind, Scope
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, NewHold, Use, UseKind
from atoll.domain.price import Cost
from atoll.domain.sandbox import Grant, Sandbox, SandboxSpec
from atoll.domain.task import Task, TaskSpec, Thread
from atoll.domain.workspace import WorkspaceMount
from atoll.services.charging.compute import WARNING, use_id
from atoll.services.charging.spending import PricedSpending
from atoll.services.ledger.prices import Prices
from atoll.testing import workspace_records_examples as examples
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
    await till.key()
    group = await _with_group(till)
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


async def test_one_whose_keys_budget_is_spent_is_ended_though_its_account_has_money(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    child = await till.key("key_b00000000000", owner=PAYER, parent=PAYER, budget_micro_usd=1_000)
    sandbox = await till.sandbox(credential=child.id)
    for seconds in (60, 120, 180):
        assert till.seconds.ended == []
        await till.ran(sandbox, seconds)
    assert till.seconds.ended == [(sandbox.id, "insufficient_credit")]


async def test_one_whose_payers_day_is_spent_is_ended(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    limited = Event("billing.limited", PAYER, PAYER, actor="test")
    await till.records.set_spending_limits(PAYER, daily=600, monthly=None, event=limited)
    sandbox = await till.sandbox()
    await till.ran(sandbox, 60)
    assert till.seconds.ended == []
    await till.ran(sandbox, 120)
    assert till.seconds.ended == [(sandbox.id, "insufficient_credit")]


async def test_a_task_whose_budget_is_spent_on_compute_is_ended_by_the_tasks(till: Till) -> None:
    await till.key()
    await till.give(1_000_000)
    task, sandbox = await _with_task(till, budget=1_000)
    await till.ran(sandbox, 60)
    assert till.dry == []
    await till.ran(sandbox, 120)
    [(ended, why)] = till.dry
    assert (ended, type(why)) == (task.id, BudgetExceeded)
    assert till.seconds.ended == [], "the task ends it, and saves its work"


async def test_what_a_tasks_model_call_holds_is_no_reason_to_end_it(till: Till) -> None:
    await till.key()
    await till.give(1_000)
    task, sandbox = await _with_task(till)
    await till.records.hold(NewHold(new_id("hold"), PAYER, 400, NOW.replace(year=2030), task=task.id), NOW)
    await till.ran(sandbox, 60)
    assert till.dry == []
    [hold] = await till.records.pending_holds(task=task.id)
    await till.ledger.settle(hold, Use(new_id("use"), PAYER, UseKind.MODEL, NOW, Cost(400)))
    await till.ran(sandbox, 120)
    assert [(one, type(why)) for one, why in till.dry] == [(task.id, InsufficientCredit)]


async def _with_group(till: Till) -> str:
    group = "grp_" + "0" * 24
    crew, first = Group(group, "crew", NOW, NOW), Member(group, PAYER, Role.ADMIN, NOW)
    await till.records.add_group(crew, first, Event("group.created", group, group, actor=PAYER))
    return group


async def _with_task(till: Till, budget: int | None = None) -> tuple[Task, Sandbox]:
    spec = TaskSpec("do it", "ws_1", agent="command", command=("true",), budget_micro_usd=budget)
    task = Task(new_id("task"), PAYER, PAYER, spec, new_id("thread"), NOW)
    thread = Thread(task.thread, PAYER, "ws_1", "command", NOW, NOW)
    await till.records.add_task(task, thread, Event("task.created", task.id, PAYER, actor=PAYER))
    return task, await till.sandbox(spec=SandboxSpec(task=task.id))


async def test_a_workspaces_costs_are_told_as_its_owners_whoever_has_the_sandbox(till: Till) -> None:
    await till.key()
    await till.give(10_000)
    group = await _with_group(till)
    lineage = examples.lineage(owner=group)
    workspace = examples.workspace(lineage, owner=group)
    await till.records.add_workspace(workspace, examples.revision(workspace), lineage, examples.event())
    await till.ran(await till.sandbox(spec=SandboxSpec(workspaces=(WorkspaceMount(workspace.id),))), 60)
    (use,) = await till.uses()
    assert (use.account, use.workspace, use.workspace_owner) == (PAYER, workspace.id, group)


async def test_a_sandbox_that_cannot_be_ended_keeps_none_behind_it_from_being_charged(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.key()
    await till.key("key_b00000000000")
    await till.give(1_000_000, "key_b00000000000")
    poor = await till.sandbox()
    rich = await till.sandbox("sess_000000000002", "key_b00000000000")
    await till.ran(poor, 60)

    async def stuck(*_: Any) -> None:
        raise Unavailable("the runtime does not answer")

    monkeypatch.setattr(till.seconds, "end", stuck)
    till.seconds.live[rich.id] = (rich, 60)
    await till.ran(poor, 120)
    assert await till.charged("key_b00000000000") == 600


async def test_a_charge_that_is_refused_keeps_none_behind_it_from_being_made(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.key()
    await till.give(1_000_000)
    first, second = await till.sandbox(), await till.sandbox("sess_000000000002")
    charge = till.ledger.charge

    async def picky(use: Use, **more: Any) -> Any:
        if use.sandbox == first.id:
            raise Conflict
        return await charge(use, **more)

    monkeypatch.setattr(till.ledger, "charge", picky)
    till.seconds.live |= {first.id: (first, 60), second.id: (second, 60)}
    assert await till.compute.run() == 1
    assert await till.charged() == 600


@pytest.mark.parametrize("ended", [False, True])
async def test_seconds_behind_a_shorter_charge_that_came_late_are_charged(
    till: Till, monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    await till.key()
    await till.give(1_000_000)
    sandbox = await till.sandbox()
    charge = till.ledger.charge

    async def after_another(use: Use, **more: Any) -> Any:
        """Somebody else charged the first 60 seconds between the look and the charge."""
        monkeypatch.undo()
        shorter = Use(
            use_id("compute", sandbox.id, 0), PAYER, UseKind.COMPUTE, NOW, Cost(600), sandbox=sandbox.id, seconds=60.0
        )
        await charge(shorter)
        return await charge(use, **more)

    monkeypatch.setattr(till.ledger, "charge", after_another)
    if ended:
        await till.ends(sandbox, 130)
        await till.compute.run()
    else:
        await till.ran(sandbox, 130)
        await till.ran(sandbox, 130)
    assert await till.charged() == 1_300


async def test_what_a_sandbox_made_is_bounded_by_its_makers_budget(till: Till) -> None:
    """Else a capability for a dollar could make a hundred sandboxes that have none of their own."""
    await till.key()
    await till.give(1_000_000)
    grant = Grant(frozenset(Scope), credential=PAYER, budget_micro_usd=1_000)
    maker = await till.sandbox(spec=SandboxSpec(capability=grant))
    made = await till.sandbox("sess_000000000002", spec=SandboxSpec(maker=maker.id))
    spending = PricedSpending(till.records, till.ledger)
    await spending.check_compute(PAYER, maker=maker.id)
    for seconds in (60, 120, 180):
        await till.ran(made, seconds)
    assert till.seconds.ended == [(made.id, "insufficient_credit")]
    with pytest.raises(BudgetExceeded):
        await spending.check_compute(PAYER, maker=maker.id)
    await spending.check_compute(PAYER)
