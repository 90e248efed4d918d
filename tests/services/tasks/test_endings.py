"""How tasks end when it is not their agent that decides: cancelled, too slow, out of money, too loud, lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atoll.domain.errors import Forbidden
from atoll.domain.key import Scope
from atoll.domain.ledger import BudgetExceeded, InsufficientCredit
from atoll.domain.price import TokenUse
from atoll.domain.task import Task, TaskEnd, TaskState
from tests.services.conftest import ALICE, READER, until
from tests.services.tasks.desk import QUICK, Desk
from tests.services.workspaces.workshop import Workshop

SLOW = ("sh", "-c", "echo kept > kept; echo so far; sleep 1000")


async def under_way(desk: Desk, *command: str, **fields: object) -> Task:
    """A task that has said something."""
    task = await desk.submit(*(command or SLOW), **fields)
    async for event in desk.tasks.events(ALICE, task.id):
        if event.type == "output":
            return await desk.tasks.get(ALICE, task.id)
    raise AssertionError("it said nothing")


async def assert_cleared(desk: Desk, task: Task, state: TaskState, end: TaskEnd) -> None:
    """Ended so, with its output so far, its work saved, and nothing left of its sandbox."""
    assert (task.state, task.end, task.output) == (state, end, "so far\n")
    assert (await desk.shop.files("w"))[b"kept"] == b"kept\n"
    assert await desk.shop.records.count_live() == 0
    assert (await desk.told(task))[-1] == "task.ended"


async def test_a_cancelled_one_ends_with_its_work_saved(desk: Desk) -> None:
    task = await under_way(desk)
    assert await desk.tasks.payer(task.id) is not None
    ended = await desk.tasks.cancel(ALICE, task.id)
    await assert_cleared(desk, ended, TaskState.CANCELLED, TaskEnd.CANCELLED)
    assert ended.error == "the task was cancelled"
    assert await desk.tasks.cancel(ALICE, task.id) == ended
    assert await desk.tasks.payer(task.id) is None


async def test_one_that_ignores_term_is_killed(desk: Desk) -> None:
    task = await under_way(desk, "sh", "-c", "trap '' TERM; echo kept > kept; echo so far; sleep 1000")
    await assert_cleared(desk, await desk.tasks.cancel(ALICE, task.id), TaskState.CANCELLED, TaskEnd.CANCELLED)


async def test_cancelling_needs_execute(desk: Desk) -> None:
    task = await under_way(desk)
    with pytest.raises(Forbidden):
        await desk.tasks.cancel(READER, task.id)
    alone = replace(ALICE, scopes=frozenset({Scope.EXECUTE}))
    assert (await desk.tasks.cancel(alone, task.id)).ended


async def test_a_waiting_one_is_cancelled_without_a_sandbox(shop: Workshop) -> None:
    desk = Desk(shop, replace(QUICK, tasks_max=1))
    await desk.start()
    try:
        first, second = await under_way(desk), await desk.submit("true")
        ended = await desk.tasks.cancel(ALICE, second.id)
        assert (ended.state, ended.sandbox, ended.started_at) == (TaskState.CANCELLED, None, None)
        assert ended.error == "the task was cancelled"
        assert await desk.told(second) == ["task.ended"]
        await desk.tasks.cancel(ALICE, first.id)
        assert len(await shop.records.list_sandboxes()) == 1
    finally:
        await desk.close()


async def test_one_that_takes_too_long_ends(desk: Desk) -> None:
    task = await desk.done(*SLOW, timeout_s=1)
    await assert_cleared(desk, task, TaskState.FAILED, TaskEnd.TIMEOUT)
    assert task.error == "the task took longer than its 1 s"


async def test_one_that_runs_dry_ends_with_its_output_so_far(desk: Desk) -> None:
    for error in (InsufficientCredit(), BudgetExceeded(subject="key_a", limit=1, spent=1)):
        task = await under_way(desk, budget_micro_usd=5_000)
        desk.tasks.used(task.id, TokenUse(10, 5), 375)
        desk.tasks.used(task.id, TokenUse(1, 1), 60)
        desk.tasks.dry(task.id, error)
        ended = await desk.tasks.wait(ALICE, task.id)
        await assert_cleared(desk, ended, TaskState.FAILED, TaskEnd.OUT_OF_CREDIT)
        assert ended.error == error.message
        assert (ended.tokens, ended.cost) == (TokenUse(11, 6), 435)


async def test_a_model_that_hangs_ends_the_task(desk: Desk) -> None:
    task = await under_way(desk)
    desk.tasks.hung(task.id, "the model did not answer")
    ended = await desk.tasks.wait(ALICE, task.id)
    await assert_cleared(desk, ended, TaskState.FAILED, TaskEnd.TIMEOUT)
    assert ended.error == "the model did not answer"


async def test_one_that_says_too_much_is_cut_and_ends_all_the_same(shop: Workshop) -> None:
    desk = Desk(shop, replace(QUICK, events_max=20, output_chars_max=30))
    await desk.start()
    try:
        script = "\n".join(f"echo line {n}" for n in range(60))
        task = await desk.done("sh", "-c", script)
        told = [one async for one in desk.tasks.events(ALICE, task.id)]
        assert [one.seq for one in told] == list(range(1, len(told) + 1)) and len(told) <= 20
        assert [one.type for one in told].count("warning") == 1 and told[-1].type == "task.ended"
        assert task.state is TaskState.SUCCEEDED
        assert task.output.endswith("line 59\n") and len(task.output) == 30
    finally:
        await desk.close()


async def test_a_lost_sandbox_is_a_lost_task_whose_work_is_saved(desk: Desk) -> None:
    task = await under_way(desk)
    await until(lambda: _has_sandbox(desk, task))
    [sandbox] = await desk.shop.records.list_sandboxes()
    await desk.shop.runtime.destroy(sandbox.id)
    await assert_cleared(desk, await desk.tasks.wait(ALICE, task.id), TaskState.FAILED, TaskEnd.LOST)


async def test_a_deleted_workspace_is_no_reason_to_hang(desk: Desk) -> None:
    task = await desk.done("true")
    await desk.shop.workspaces.delete(ALICE, "w")
    again = await desk.done("true")
    assert (task.state, again.state) == (TaskState.SUCCEEDED, TaskState.SUCCEEDED)
    assert task.spec.workspace != again.spec.workspace


async def _has_sandbox(desk: Desk, task: Task) -> bool:
    return (await desk.tasks.get(ALICE, task.id)).sandbox is not None
