"""Who pays for a task, within which budgets, and that a task's end leaves nothing held and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from atoll.agents.codex import Codex
from atoll.agents.command import Command
from atoll.domain.errors import Forbidden, Unavailable
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import ApiKey, KeyKind, Scope
from atoll.domain.ledger import Budget, Payer, Use, UseKind
from atoll.domain.price import Cost, TokenUse
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Grant, Sandbox, SandboxSpec
from atoll.domain.task import Task, TaskEnd, TaskSpec, TaskState
from atoll.services.charging.payers import payer_of_sandbox
from atoll.services.ledger.ledger import Ledger
from atoll.services.tasks.money import payer_of
from tests.services.conftest import ALICE, OWNER, until
from tests.services.tasks.desk import Desk
from tests.services.tasks.test_endings import SLOW, under_way
from tests.services.workspaces.workshop import Workshop

DOLLAR = 1_000_000


@pytest.fixture
async def bank(shop: Workshop) -> AsyncIterator[Desk]:
    """A desk with a ledger, and ALICE with ten dollars."""
    ledger = Ledger(shop.records, clock=shop.clock)
    desk = Desk(shop, money=ledger)
    await ledger.credit(OWNER, ALICE.id, 10 * DOLLAR)
    await desk.start()
    yield desk
    await desk.close()


def model_use(payer: Payer, desk: Desk) -> Use:
    cost = Cost(98_220, 4_860)
    tokens = TokenUse(6_548, 108)
    return Use(new_id("use"), payer.account, UseKind.MODEL, desk.shop.clock(), cost, tokens, task=payer.task)


async def test_a_tasks_usage_is_what_the_ledger_has_of_it(bank: Desk) -> None:
    task = await under_way(bank, *SLOW)
    payer = await bank.tasks.payer(task.id)
    assert payer is not None and (payer.account, payer.task, payer.internal) == (ALICE.id, task.id, False)
    hold = await bank.money.hold(payer, DOLLAR, lasts_s=60)
    ending = asyncio.create_task(bank.tasks.cancel(ALICE, task.id))

    async def destroyed() -> bool:
        state = (await bank.tasks.get(ALICE, task.id)).state
        return state is TaskState.ENDING and await bank.shop.records.count_live() == 0

    await until(destroyed, 20)
    await asyncio.sleep(0.1)
    assert not ending.done(), "the call that was cut is not charged yet"
    await bank.money.settle(hold, model_use(payer, bank))
    ended = await ending
    assert (ended.tokens, ended.cost) == (TokenUse(6_548, 108), 103_080)
    usage = await bank.tasks.usage(ended)
    assert (usage.cost, usage.charged) == (103_080, 103_080)
    assert usage.account is not None and usage.account.balance == 10 * DOLLAR - 103_080 == usage.account.available


async def test_c05_a_server_that_dies_with_a_call_under_way_loses_no_credit_and_makes_none(bank: Desk) -> None:
    task = await under_way(bank, "sh", "-c", "echo so far; sleep 0.3")
    payer = await bank.tasks.payer(task.id)
    assert payer is not None
    await bank.money.hold(payer, DOLLAR, lasts_s=60)
    await bank.die()
    ended = await bank.tasks.wait(ALICE, task.id)
    assert (ended.state, ended.cost) == (TaskState.SUCCEEDED, 0)
    bank.shop.now += timedelta(seconds=300)
    assert await bank.money.expire() == 1
    account = await bank.money.account(ALICE.id)
    assert (account.balance, account.held) == (10 * DOLLAR, 0)


async def test_budgets_of_the_task_and_of_every_key_above_bound_it(bank: Desk) -> None:
    records = bank.shop.records
    for key_id, budget in (("key_00000000000a", 5 * DOLLAR), ("key_00000000000b", None)):
        now, scopes = bank.shop.clock(), frozenset(Scope)
        key = ApiKey(key_id, key_id, "p", "n", KeyKind.STANDARD, scopes, now, budget_micro_usd=budget)
        await records.add_key(key, Event("key.created", key_id, tenant=ALICE.id, actor=ALICE.id))
    child = Principal(
        ALICE.id, KeyKind.STANDARD, frozenset(Scope), credential="key_00000000000b",
        lineage=("key_00000000000b", "key_00000000000a"),
    )  # fmt: skip
    task = await bank.submit(*SLOW, principal=child, budget_micro_usd=DOLLAR)
    while (payer := await bank.tasks.payer(task.id)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert set(payer.budgets) == {Budget(task.id, DOLLAR), Budget("key_00000000000a", 5 * DOLLAR)}
    assert payer.workspace_owner == ALICE.id
    told: list[str] = []
    for cost in (450_000, 100_000, 300_000, 200_000):
        bank.tasks.used(task.id, TokenUse(1, 1), cost)
    await bank.tasks.cancel(ALICE, task.id)
    async for event in bank.tasks.events(ALICE, task.id):
        told += [f"{event.data['percent']} %"] if event.type == "warning" else []
    assert told == ["50 %", "80 %", "100 %"]


async def test_sandboxes_that_made_each_other_spend_together(bank: Desk) -> None:
    """Else a capability for a dollar could be given on to a hundred sandboxes, a dollar each."""
    ids = [f"sess_{n:012x}" for n in range(3)]
    for sandbox_id, giver, budget in ((ids[0], ALICE.id, 3), (ids[1], ids[0], None), (ids[2], ids[1], 1)):
        grant = Grant(frozenset(Scope), credential=giver, budget_micro_usd=None if budget is None else budget * DOLLAR)
        sandbox = Sandbox(sandbox_id, ALICE.id, SandboxSpec(capability=grant), "fake", bank.shop.clock())
        await bank.shop.records.add_sandbox(sandbox, Event("sandbox.created", sandbox_id, ALICE.id, ALICE.id))
    task = Task("task_x", ALICE.id, ids[2], TaskSpec("do it", "w"), "thread_x", bank.shop.clock())
    payer = await payer_of(bank.shop.records, task)
    assert set(payer.budgets) == {Budget(ids[0], 3 * DOLLAR), Budget(ids[2], DOLLAR)}
    last = await bank.shop.records.get_sandbox(ids[2])
    assert last is not None
    assert (await payer_of_sandbox(bank.shop.records, last)).budgets == (Budget(ids[0], 3 * DOLLAR),)


async def test_a_task_that_outlived_its_server_asks_its_model_before_the_next_one_follows_it(bank: Desk) -> None:
    task = await under_way(bank, *SLOW)
    bank.cut()
    await bank.shop.die()
    bank.build()
    asking = asyncio.create_task(bank.tasks.payer(task.id))
    await asyncio.sleep(0.1)
    assert not asking.done()
    await bank.start()
    payer = await asking
    assert payer is not None and payer.task == task.id
    await bank.tasks.cancel(ALICE, task.id)
    assert await bank.tasks.payer(task.id) is None


async def test_nobody_spends_a_tasks_budget_from_inside_but_who_asked_for_it(bank: Desk) -> None:
    """A key with a budget of nothing must not reach a model by way of somebody else's task."""
    processes = bank.shop.sandboxes.processes
    task = await under_way(bank, *SLOW, principal=key_of("key_00000000000b", "key_00000000000a"))
    sandbox = (await bank.tasks.get(ALICE, task.id)).sandbox or ""
    for allowed in (ALICE, key_of("key_00000000000b", "key_00000000000a"), key_of("key_00000000000a")):
        assert (await processes.run(allowed, sandbox, ProcessSpec(("true",)))).exit.code == 0
    inside = replace(key_of("key_00000000000b", "key_00000000000a"), credential="sess_000000000009")
    for other in (key_of("key_00000000000c"), key_of("key_00000000000d", "key_00000000000b"), inside):
        with pytest.raises(Forbidden, match="another credential"):
            await processes.run(other, sandbox, ProcessSpec(("true",)))
        assert await processes.list(other, sandbox)
    await bank.tasks.cancel(ALICE, task.id)


def key_of(*lineage: str) -> Principal:
    return Principal(ALICE.id, KeyKind.STANDARD, frozenset(Scope), credential=lineage[0], lineage=lineage)


async def test_a_credential_that_is_revoked_spends_nothing_more_and_its_work_is_saved(
    bank: Desk,
) -> None:
    task = await under_way(bank, *SLOW)
    assert await bank.tasks.payer(task.id) is not None
    bank.revoked.add(task.credential)
    assert await bank.tasks.payer(task.id) is None
    ended = await bank.tasks.wait(ALICE, task.id)
    assert (ended.state, ended.end) == (TaskState.CANCELLED, TaskEnd.CANCELLED) and "revoked" in ended.error
    assert (await bank.shop.files("w"))[b"kept"] == b"kept\n"


async def test_an_agent_whose_model_is_not_set_up_says_so_before_anything_is_begun(bank: Desk) -> None:
    """The agents themselves ask again for a while before they give up."""
    bank.agents = {"command": Command(), "codex": Codex()}
    bank.unspoken.add("openai")
    await bank.restart()
    with pytest.raises(Unavailable, match="set a key"):
        await bank.submit(agent="codex", workspace="none")
    assert not await bank.shop.records.list_tasks()
    assert (await bank.done("true")).state is TaskState.SUCCEEDED


async def test_what_is_internal_is_metered_and_nobodys_bill(bank: Desk) -> None:
    task = await bank.done("true", principal=OWNER, workspace="own")
    assert task.internal
    assert (await bank.tasks.usage(task)).account is None
