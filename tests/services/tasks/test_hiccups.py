"""The records fail for a moment, or answer that they failed when they did not: a task goes on as if they had not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from atoll.agents.base import Said
from atoll.domain.errors import Unavailable
from atoll.domain.event import Event
from atoll.domain.task import Task, TaskEnd, TaskEvent, TaskState
from atoll.services.tasks import following, queue
from atoll.services.tasks.record import Record
from tests.services.tasks.desk import QUICK, Desk
from tests.services.tasks.test_endings import under_way
from tests.services.tasks.test_restarts import LINES, assert_whole


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_S", 0.05)
    monkeypatch.setattr(queue, "LOOK_EVERY_S", 0.1)


@pytest.mark.parametrize("at", range(1, 10))
async def test_a_commit_that_nobody_heard_of_loses_and_doubles_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    records, count = desk.shop.records, 0
    swap = records.swap_task

    async def unheard(task: Task, event: Event | None = None, *, told: Sequence[TaskEvent] = ()) -> Task:
        nonlocal count
        stored = await swap(task, event, told=told)
        count += 1
        if count == at:
            raise Unavailable("the connection was lost in a commit")
        return stored

    monkeypatch.setattr(records, "swap_task", unheard)
    await assert_whole(desk, (await desk.submit(*LINES)).id)
    assert count >= at


async def test_records_that_fail_once_before_its_turn_do_not_fail_a_task(desk: Desk) -> None:
    real, asked = desk.access.stands, 0

    async def once(credential: str, owner: str) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unavailable("the records are down")
        return await real(credential, owner)

    object.__setattr__(desk.access, "stands", once)
    task = await desk.done("true")
    assert (task.state, task.end) == (TaskState.SUCCEEDED, TaskEnd.DONE)
    assert asked > 1


async def test_what_could_not_be_stored_does_not_count_towards_what_is_kept_of_a_task(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await under_way(desk)
    desk.cut()
    said = [Said("output", {"text": "a" * 100})]
    record = Record(replace(desk.access, limits=replace(QUICK, events_bytes_max=300)), task)
    await record.load()
    with monkeypatch.context() as down:
        down.setattr(desk.shop.records, "swap_task", failing)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await record.change(said=said)
    before = len(await desk.shop.records.task_events(task.id))
    for _ in range(4):
        await record.change(said=said)
    told = (await desk.shop.records.task_events(task.id))[before:]
    assert [one.type for one in told] == ["output", "output", "warning"]


async def failing(*_: object, **__: object) -> Task:
    raise Unavailable("the records are down")
