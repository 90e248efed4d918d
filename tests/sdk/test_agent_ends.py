"""Tasks that end before they are done: they fail, the money is spent, or whoever asked goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from atoll import Agent, AsyncAgent, run, run_streamed
from atoll.sdk import (
    AsyncTasks,
    BudgetExceeded,
    InsufficientCredit,
    SpendingLimitExceeded,
    TaskCancelled,
    TaskFailed,
    TaskInfo,
    TaskTimedOut,
    _async_io,
)
from tests.sdk.fake_tasks import BILLING, USAGE, FakeTasks


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ({"state": "failed", "reason": "agent_failed", "error": "it gave up"}, TaskFailed),
        ({"state": "failed", "reason": "timeout"}, TaskTimedOut),
        ({"state": "cancelled", "reason": "cancelled"}, TaskCancelled),
        ({"state": "failed", "reason": "insufficient_credit"}, InsufficientCredit),
        ({"state": "failed", "reason": "insufficient_credit", "code": "budget_exceeded"}, BudgetExceeded),
        (
            {"state": "failed", "reason": "insufficient_credit", "code": "spending_limit_exceeded"},
            SpendingLimitExceeded,
        ),
    ],
)
def test_a_task_that_ends_badly_raises_with_its_output_and_its_work_saved(
    tasks: FakeTasks, folder: Path, end: dict[str, Any], error: type[Any]
) -> None:
    tasks.end = {**end, "usage": USAGE, "billing": BILLING}
    with pytest.raises(error) as caught:
        run(Agent(workspace=folder), "x")
    assert type(caught.value) is error
    assert caught.value.output == "Created hello.py"
    assert caught.value.result.session_id.startswith("thread_")
    assert (folder / "hello.py").exists()
    if "error" in end:
        assert caught.value.message == end["error"]


def test_what_is_refused_for_money_says_how_much_there_is(tasks: FakeTasks, folder: Path) -> None:
    tasks.refuse = (
        402,
        {
            "error": "Insufficient Credits",
            "message": "Your credit balance is insufficient. Please add credits to continue.",
            "details": {"currentBalance": 0.00001, "totalSpent": 5},
        },
    )
    with pytest.raises(InsufficientCredit, match="add credits") as poor:
        run(Agent(workspace=folder), "x")
    assert (poor.value.current_balance, poor.value.total_spent) == (Decimal("0.00001"), 5)
    assert poor.value.balance == 10
    assert poor.value.result is None
    assert len(tasks.requests) == 1
    tasks.refuse = (
        429,
        {
            "error": "Spending Limit Exceeded",
            "message": "Daily spending limit exceeded ($10)",
            "details": {"dailyUsage": 10.5, "dailyLimit": 10, "monthlyUsage": 20, "monthlyLimit": None},
        },
    )
    with pytest.raises(SpendingLimitExceeded, match="Daily") as limited:
        run(Agent(workspace=folder), "x")
    assert limited.value.details["dailyUsage"] == Decimal("10.5")
    assert limited.value.monthly_limit is None
    assert len(tasks.requests) == 2


def test_a_caller_that_is_cancelled_ends_the_task(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True

    async def give_up() -> None:
        work = asyncio.create_task(run(AsyncAgent(workspace=folder), "x"))
        while not tasks.all:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(give_up())
    assert tasks.cancelled == list(tasks.all)


def test_ctrl_c_in_run_ends_the_task(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True

    def press() -> None:
        until = time.monotonic() + 10
        while not tasks.resumed and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        run(Agent(workspace=folder), "x")
    presser.join(10)
    assert tasks.cancelled == list(tasks.all)


def test_leaving_a_stream_before_its_end_cancels_the_task(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    with pytest.raises(KeyboardInterrupt), run_streamed(Agent(workspace=folder), "x") as stream:
        for event in stream:
            if event.type == "task.started":
                raise KeyboardInterrupt
    assert tasks.cancelled == list(tasks.all)


def test_a_stream_that_is_left_gives_its_connection_back_before_it_cancels(
    tasks: FakeTasks, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.held = True
    used: list[int] = []
    cancel = AsyncTasks.cancel

    async def cancelling(self: AsyncTasks, task: str) -> TaskInfo:
        [(lanes, _)] = _async_io._kept.values()
        used.append(sum(len(lane.users) for lane in lanes))
        return await cancel(self, task)

    async def leave() -> None:
        async with run_streamed(AsyncAgent(workspace=folder), "x") as stream:
            async for event in stream:
                if event.type == "task.started":
                    break

    monkeypatch.setattr(AsyncTasks, "cancel", cancelling)
    asyncio.run(leave())
    assert used == [0]


def test_a_cancelled_run_brings_back_what_was_done(tasks: FakeTasks, folder: Path) -> None:
    tasks.held = True
    stream = run_streamed(Agent(workspace=folder), "x")
    canceller: threading.Thread | None = None
    for event in stream:
        if event.type == "task.started":
            canceller = threading.Thread(target=stream.cancel)
            canceller.start()
    assert canceller is not None
    canceller.join(10)
    assert stream.outcome.state == "cancelled"
    assert (folder / "partial.txt").read_text() == "so far\n"
    with pytest.raises(TaskCancelled):
        assert stream.result
