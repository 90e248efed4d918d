"""What a task cost, to the millionth, and what is answered when the money runs out under one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.domain.errors import AtollError
from atoll.domain.ids import new_id
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit, SpendingLimitExceeded, Use, UseKind
from atoll.domain.price import ModelPrice, TokenUse
from atoll.domain.task import TaskState
from tests.services.conftest import until
from tests.surfaces.testbase.test_execute import ALICE_ID, STREAM, execute, frames, pay

SEEDS_USE = TokenUse(6548, 108)
SEEDS_USAGE = {"inputTokens": 6548, "outputTokens": 108, "totalTokens": 6656, "totalCost": 0.10308}


async def running(house: Any) -> str:
    """The id of the task that runs."""

    async def runs() -> list[Any]:
        found = await house.records.list_tasks(states={TaskState.RUNNING})
        return [one for one in found if one.process is not None]

    await until(runs)
    return (await runs())[0].id


async def use(house: Any, task: str, tokens: TokenUse = SEEDS_USE) -> None:
    """One call of a model, as the gateway settles it."""
    payer = await house.app.tasks.payer(task)
    cost = ModelPrice().cost(tokens)
    hold = await house.app.ledger.hold(payer, cost.total, lasts_s=60)
    used = Use(
        new_id("use"),
        payer.account,
        UseKind.MODEL,
        datetime.now(UTC),
        cost,
        tokens,
        "model",
        payer.credential,
        task,
        payer.thread,
        workspace=payer.workspace,
        internal=payer.internal,
    )
    await house.app.ledger.settle(hold, used)
    house.app.tasks.used(task, tokens, cost.total)


async def test_usage_and_billing_are_the_seeds_to_the_millionth(house: Any) -> None:
    await pay(house, ALICE_ID, 10_000_000)
    waiting = asyncio.create_task(execute(house, "sleep", "1"))
    await use(house, await running(house))
    answer = await waiting
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"] == SEEDS_USAGE
    assert answer.json()["billing"] == {"balanceAfter": 9.89692, "totalSpent": 0.10308}
    assert b'"totalCost":0.10308,' in answer.content.replace(b"}", b",")  # not 0.10307999999999999


async def test_an_internal_key_is_told_what_it_used_and_never_billed(house: Any, keys: Any) -> None:
    waiting = asyncio.create_task(execute(house, "sleep", "1", key=keys.OWNER))
    await use(house, await running(house))
    body = (await waiting).json()
    assert body["usage"] == SEEDS_USAGE and "billing" not in body


REFUSALS: list[tuple[AtollError, int, str, dict[str, Any]]] = [
    (
        InsufficientCredit(balance=0, spent=103_080),
        402,
        "Insufficient Credits",
        {"currentBalance": 0, "totalSpent": 0.10308},
    ),
    (
        SpendingLimitExceeded(
            "Daily spending limit exceeded ($1)",
            daily_usage=1_030_800,
            daily_limit=1_000_000,
            monthly_usage=1_030_800,
            monthly_limit=None,
        ),
        429,
        "Spending Limit Exceeded",
        {"dailyUsage": 1.0308, "dailyLimit": 1, "monthlyUsage": 1.0308, "monthlyLimit": None},
    ),
    (
        BudgetExceeded(subject="key_1", limit=100, spent=90),
        402,
        "Budget Exceeded",
        {"budget": "key_1", "limit": 0.0001, "spent": 0.00009},
    ),
]


@pytest.mark.parametrize(("error", "status", "title", "details"), REFUSALS)
async def test_a_task_that_runs_dry_answers_with_its_output_so_far(
    house: Any, error: AtollError, status: int, title: str, details: dict[str, Any]
) -> None:
    await pay(house, ALICE_ID, 10_000_000)
    headers = {"idempotency-key": "dry"}
    program = "echo so far; echo work > /workspace/work.txt; sleep 60"
    waiting = asyncio.create_task(execute(house, "sh", "-c", program, headers=headers))
    task = await running(house)
    await use(house, task)

    async def wrote() -> bool:
        return bool([one for one in await house.records.task_events(task) if one.type == "output"])

    await until(wrote)
    house.app.tasks.dry(task, error)
    answer = await waiting
    body = answer.json()
    assert (answer.status_code, body["error"], body["message"]) == (status, title, error.message)
    assert body["details"] == details
    assert (body["reason"], body["workspaceId"], body["taskId"]) == ("insufficient_credit", "my-project", task)
    assert "so far" in body["output"] and body["sessionId"].startswith("thread_")
    assert body["usage"] == SEEDS_USAGE and body["billing"] == {"balanceAfter": 9.89692, "totalSpent": 0.10308}
    assert (await house.call("GET", "/workspace/my-project/download/work.txt")).text == "work\n"
    # later, and to whoever follows it, the same is said
    await pay(house, ALICE_ID, 90_000_000)
    again = await execute(house, "sh", "-c", program, headers=headers)
    assert (again.status_code, again.json()["details"]) == (status, details)
    last = frames((await house.call("GET", f"/tasks/{task}/events", headers=STREAM)).text)[-1]["data"]
    assert (last["state"], last["code"], last["details"]) == ("failed", error.code, details)
    # and the session goes on
    more = await execute(house, "true", sessionId=body["sessionId"])
    assert more.status_code == 200, more.text


async def test_a_model_that_hangs_ends_the_task_and_not_the_server(house: Any) -> None:
    await pay(house, ALICE_ID, 10_000_000)
    waiting = asyncio.create_task(execute(house, "sleep", "60"))
    house.app.tasks.hung(await running(house), "the model did not answer within 300 s")
    answer = await waiting
    body = answer.json()
    assert (answer.status_code, body["error"], body["reason"]) == (500, "Task execution failed", "timeout")
    assert body["message"] == "the model did not answer within 300 s"
    assert (await house.call("GET", "/health", None)).status_code == 200


async def test_a_task_has_its_own_time_and_its_own_budget(house: Any) -> None:
    await pay(house, ALICE_ID, 10_000_000)
    late = await execute(house, "sleep", "60", timeout=1)
    assert (late.status_code, late.json()["reason"]) == (500, "timeout")
    waiting = asyncio.create_task(execute(house, "sleep", "2", budget=0.0001))
    payer = await house.app.tasks.payer(await running(house))
    with pytest.raises(BudgetExceeded):
        await house.app.ledger.hold(payer, 101, lasts_s=60)
    assert (await waiting).status_code == 200
