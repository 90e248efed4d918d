"""Whose turn it is: owners by turns, so many at once, one after the other in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from atoll.domain.errors import QuotaExceeded
from atoll.domain.task import Task, TaskState
from tests.services.conftest import ALICE, BOB, until
from tests.services.tasks.desk import QUICK, Desk
from tests.services.workspaces.workshop import Workshop

LIMITS = replace(QUICK, tasks_max=2, tasks_per_owner=2, waiting_max=6, unended_per_owner=5)


@pytest.fixture
async def small(shop: Workshop) -> AsyncIterator[Desk]:
    desk = Desk(shop, LIMITS)
    await desk.start()
    yield desk
    await desk.close()


async def running(desk: Desk) -> list[Task]:
    found = await desk.shop.records.list_tasks(states={TaskState.RUNNING, TaskState.ENDING})
    return [one for one in found if one.sandbox is not None]


async def some_run(desk: Desk, count: int) -> list[Task]:
    async def there() -> bool:
        return len(await running(desk)) == count

    await until(there)
    return await running(desk)


async def test_one_with_many_waits_beside_one_with_few(small: Desk) -> None:
    many = [await small.submit("sleep", "1000") for _ in range(4)]
    await some_run(small, 2)
    few = await small.submit("true", principal=BOB, workspace="b")
    await small.tasks.cancel(ALICE, many[0].id)
    assert (await small.tasks.wait(BOB, few.id)).state is TaskState.SUCCEEDED
    assert (await small.tasks.get(ALICE, many[3].id)).state is TaskState.QUEUED
    for task in many:
        await small.tasks.cancel(ALICE, task.id)


async def test_beyond_what_may_wait_a_request_is_refused(small: Desk) -> None:
    tasks = [await small.submit("sleep", "1000") for _ in range(5)]
    with pytest.raises(QuotaExceeded, match="5 of 5"):
        await small.submit("true")
    bobs = [await small.submit("sleep", "1000", principal=BOB, workspace="b") for _ in range(3)]
    with pytest.raises(QuotaExceeded, match="maximum of 6 waiting tasks"):
        await small.submit("true", principal=BOB, workspace="b")
    for who, task in [(BOB, one) for one in bobs] + [(ALICE, one) for one in tasks]:
        await small.tasks.cancel(who, task.id)
    assert (await small.done("true")).state is TaskState.SUCCEEDED


async def test_a_threads_tasks_wait_for_each_other_and_a_workspaces_do_not(small: Desk) -> None:
    first = await small.submit("sh", "-c", "sleep 0.3; echo one > seen")
    second = await small.submit("cat", "seen", session=first.thread)
    beside = await small.done("true")
    assert beside.ended_at is not None
    seen = await small.tasks.wait(ALICE, second.id)
    one = await small.tasks.get(ALICE, first.id)
    assert seen.output == "one\n"
    assert one.ended_at and seen.started_at and one.ended_at <= seen.started_at
    assert beside.ended_at <= one.ended_at
