"""The server ends or dies while tasks run; the next one goes on with them, and nothing is lost, doubled or left."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain import crash
from atoll.domain.task import TaskEnd, TaskState
from tests.services.conftest import ALICE, until
from tests.services.tasks.desk import Desk
from tests.services.tasks.test_endings import SLOW, assert_cleared, under_way

POINTS = sorted(one for one in crash.POINTS if one.startswith("tasks."))
LINES = ("sh", "-c", "\n".join(["echo made > made"] + [f"echo {n}; sleep 0.02" for n in range(20)]))
TEXT = "".join(f"{n}\n" for n in range(20))


class Died(BaseException):
    """The process is gone: nothing after the point runs."""


async def assert_whole(desk: Desk, task_id: str) -> None:
    task = await desk.tasks.wait(ALICE, task_id)
    assert (task.state, task.end, task.output, task.error) == (TaskState.SUCCEEDED, TaskEnd.DONE, TEXT, "")
    told = [one async for one in desk.tasks.events(ALICE, task_id)]
    assert [one.seq for one in told] == list(range(1, len(told) + 1))
    assert [one.type for one in told] == ["task.started", *["output"] * 20, "task.ended"]
    assert "".join(one.data["text"] for one in told if one.type == "output") == TEXT
    actions = [one.action for one in await desk.shop.records.list_events(target=task_id)]
    assert actions == ["task.created", "task.ended"]
    assert (await desk.shop.files("w"))[b"made"] == b"made\n"
    assert await desk.shop.records.count_live() == 0


async def test_a_restart_in_the_middle_loses_and_doubles_nothing(desk: Desk) -> None:
    task = await desk.submit(*LINES)
    for kill in (False, True, True):
        heard = 0
        async for event in desk.tasks.events(ALICE, task.id):
            heard += event.type == "output"
            if heard >= 3:
                break
        await (desk.die() if kill else desk.restart())
    await assert_whole(desk, task.id)


@pytest.mark.parametrize("point", POINTS)
async def test_c01_a_crash_at_each_step_leaves_a_task_that_ends_once(desk: Desk, point: str) -> None:
    reached = asyncio.Event()

    def die(name: str) -> None:
        desk.cut()
        reached.set()
        raise Died(name)

    with crash.armed(point, die):
        submitting = asyncio.create_task(desk.submit(*LINES))
        async with asyncio.timeout(10):
            await reached.wait()
        await asyncio.wait((submitting,))
        submitting.exception()
    await desk.die()
    [task] = await desk.tasks.list(ALICE)
    await assert_whole(desk, task.id)


async def test_a_task_whose_sandbox_went_meanwhile_is_lost_and_its_work_saved(desk: Desk) -> None:
    task = await under_way(desk)
    desk.cut()
    [sandbox] = await desk.shop.records.list_sandboxes()
    await desk.shop.runtime.destroy(sandbox.id)
    await desk.die()
    ended = await desk.tasks.wait(ALICE, task.id)
    assert (ended.state, ended.end) == (TaskState.FAILED, TaskEnd.LOST)
    assert (await desk.shop.files("w"))[b"kept"] == b"kept\n"


async def test_a_wish_to_end_outlives_the_server(desk: Desk) -> None:
    task = await under_way(desk, *SLOW)
    cancelling = asyncio.create_task(desk.tasks.cancel(ALICE, task.id))
    await until(lambda: _wished(desk, task.id))
    cancelling.cancel()
    await desk.die()
    await assert_cleared(desk, await desk.tasks.wait(ALICE, task.id), TaskState.CANCELLED, TaskEnd.CANCELLED)


async def test_time_goes_on_while_no_server_runs(desk: Desk) -> None:
    task = await under_way(desk, *SLOW, timeout_s=1)
    await desk.close()
    await asyncio.sleep(1.1)
    await desk.restart()
    await assert_cleared(desk, await desk.tasks.wait(ALICE, task.id), TaskState.FAILED, TaskEnd.TIMEOUT)


async def _wished(desk: Desk, task_id: str) -> bool:
    return (await desk.tasks.get(ALICE, task_id)).cancel_asked
