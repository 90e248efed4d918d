"""What is told of a task: live, from any number on, to everybody who may listen."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from atoll.domain.errors import InvalidInput
from tests.services.conftest import ALICE
from tests.services.tasks.desk import Desk

SCRIPT = ("sh", "-c", "\n".join(["echo one", "sleep 0.05", "echo two", "sleep 0.05", "echo three"]))
WHOLE = ["task.started", "output", "output", "output", "task.ended"]


async def test_each_follower_hears_all_from_where_it_begins(desk: Desk) -> None:
    task = await desk.submit(*SCRIPT)
    heard = await asyncio.gather(*(desk.told(task, after) for after in (0, 0, 2, 5, 99)))
    assert heard == [WHOLE, WHOLE, WHOLE[2:], [], []]
    assert await desk.told(task) == WHOLE
    assert await desk.told(task, 4) == WHOLE[4:]
    with pytest.raises(InvalidInput):
        await anext(aiter(desk.tasks.events(ALICE, task.id, after=-1)))


async def test_a_follower_that_leaves_and_comes_back_misses_nothing(desk: Desk) -> None:
    task = await desk.submit(*SCRIPT)
    heard: list[str] = []
    while "task.ended" not in heard:
        async with aclosing(desk.tasks.events(ALICE, task.id, after=len(heard))) as events:
            event = await anext(events)
            heard.append(event.type)
            assert event.seq == len(heard)
    assert heard == WHOLE
    assert desk.access.feed._topics == {}


async def test_what_is_told_live_is_stored_by_then(desk: Desk) -> None:
    task = await desk.submit(*SCRIPT)
    async for event in desk.tasks.events(ALICE, task.id):
        assert event in await desk.shop.records.task_events(task.id)


async def test_a_slow_follower_hears_what_is_at_hand_no_more(desk: Desk) -> None:
    task = await desk.submit("sh", "-c", "\n".join(f"echo {n}" for n in range(600)))
    heard = 0
    async for _ in desk.tasks.events(ALICE, task.id):
        heard += 1
        if heard == 1:
            await desk.tasks.wait(ALICE, task.id)
    assert heard == 602
