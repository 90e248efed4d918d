"""The records fail for a moment, or answer that they failed when they did not: a task goes on as if they had not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from atoll.agents.base import Said
from atoll.domain.errors import StaleVersion, Unavailable
from atoll.domain.event import Event
from atoll.domain.task import Task, TaskEnd, TaskEvent, TaskState
from atoll.services.tasks import following, placing, queue, record
from atoll.services.tasks.record import Record
from tests.services.conftest import ALICE, until
from tests.services.tasks.desk import QUICK, Desk
from tests.services.tasks.test_endings import under_way
from tests.services.tasks.test_restarts import LINES, assert_whole
from tests.services.workspaces.workshop import Workshop


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
    kept = Record(replace(desk.access, limits=replace(QUICK, events_bytes_max=300)), task)
    await kept.load()
    with monkeypatch.context() as down:
        down.setattr(desk.shop.records, "swap_task", failing)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await kept.change(said=said)
    before = len(await desk.shop.records.task_events(task.id))
    for _ in range(4):
        await kept.change(said=said)
    told = (await desk.shop.records.task_events(task.id))[before:]
    assert [one.type for one in told] == ["output", "output", "warning"]


async def failing(*_: object, **__: object) -> Task:
    raise Unavailable("the records are down")


async def test_a_run_that_ends_while_claims_are_renewed_is_left_alone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(shop, replace(QUICK, lease_s=60.0))
    await desk.start()
    try:
        task = await under_way(desk)
        turns = desk.tasks._queue  # pyright: ignore[reportPrivateUsage]
        get, renew = shop.records.get_task, shop.records.renew_claims

        async def of_another(*words: Any) -> set[str]:
            await renew(*words)
            return set()

        async def ends_meanwhile(task_id: str) -> Task | None:
            turns._tasks[task_id].cancel()  # pyright: ignore[reportPrivateUsage]
            await until(lambda: turns.run(task_id) is None)
            return await get(task_id)

        with monkeypatch.context() as slow:
            slow.setattr(shop.records, "renew_claims", of_another)
            slow.setattr(shop.records, "get_task", ends_meanwhile)
            await turns._renew()  # pyright: ignore[reportPrivateUsage]
        assert (await desk.tasks.cancel(ALICE, task.id)).end is TaskEnd.CANCELLED
    finally:
        await desk.close()


@pytest.mark.parametrize("broken", ["claim_tasks", "renew_claims", "prune_tasks"])
async def test_no_fault_ends_a_loop(shop: Workshop, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    for name in ("AGAIN_S", "PRUNE_EVERY_S"):
        monkeypatch.setattr(queue, name, 0.05)
    real, calls = getattr(shop.records, broken), 0

    async def once(*words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("a fault of the program")
        return await real(*words, **named)

    monkeypatch.setattr(shop.records, broken, once)
    desk = Desk(shop, replace(QUICK, lease_s=0.15))
    await desk.start()
    try:
        await until(lambda: calls >= 3, 20)
        assert (await desk.done("true")).state is TaskState.SUCCEEDED
    finally:
        await desk.close()


async def test_what_ended_long_ago_is_forgotten_a_little_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PRUNE_EVERY_S", 0.05), ("PRUNED_AGAIN_S", 0.01), ("PRUNED_AT_ONCE", 1)):
        monkeypatch.setattr(queue, name, value)
    old = [await desk.done("true") for _ in range(3)]
    desk.shop.now += timedelta(seconds=QUICK.kept_s + 60)
    await desk.restart()
    recent = await desk.done("true")

    async def gone() -> bool:
        return [one.id for one in await desk.shop.records.list_tasks()] == [recent.id]

    await until(gone, 20)
    assert [await desk.shop.records.task_events(one.id) for one in old] == [[], [], []]


async def test_an_agent_is_named_although_the_records_failed_when_it_had_its_prompt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next server would begin it anew."""
    monkeypatch.setattr(placing, "AGAIN_S", 0.05)
    records, errors = desk.shop.records, [Unavailable("the records are down"), StaleVersion()]
    swap = records.swap_task

    async def failing_twice(task: Task, event: Event | None = None, *, told: Sequence[TaskEvent] = ()) -> Task:
        stored = await records.get_task(task.id)
        if errors and stored is not None and task.process != stored.process:
            raise errors.pop(0)
        return await swap(task, event, told=told)

    monkeypatch.setattr(records, "swap_task", failing_twice)
    monkeypatch.setattr(record, "SWAPS_MAX", 1)
    task = await desk.submit("sh", "-c", "echo begun >> begun; echo so far; sleep 1000")

    async def named() -> bool:
        return (await desk.tasks.get(ALICE, task.id)).process is not None

    await until(named, 20)
    await desk.die()
    await desk.tasks.cancel(ALICE, task.id)
    assert (await desk.shop.files("w"))[b"begun"] == b"begun\n"
    assert not errors


async def test_who_waits_for_the_end_asks_for_no_events(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    events = desk.shop.records.task_events

    async def noted(task_id: str, *, after: int = 0, limit: int = 1000) -> list[TaskEvent]:
        asked.append(after)
        return await events(task_id, after=after, limit=limit)

    monkeypatch.setattr(desk.shop.records, "task_events", noted)
    task = await desk.done(*LINES)
    assert (task.state, task.error, asked) == (TaskState.SUCCEEDED, "", [])
    assert "output" in await desk.told(task)
    assert asked


async def test_a_cancel_between_a_claim_and_its_turn_is_seen(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = shop.records.claim_tasks

    async def cancelled_meanwhile(*words: Any, **named: Any) -> list[Task]:
        claimed = await claim(*words, **named)
        for task in claimed:
            await shop.records.swap_task(replace(task, cancel_asked=True))
        return claimed

    monkeypatch.setattr(shop.records, "claim_tasks", cancelled_meanwhile)
    desk = Desk(shop, replace(QUICK, lease_s=600.0))
    await desk.start()
    try:
        async with asyncio.timeout(20):
            task = await desk.done("sleep", "1000")
        assert (task.state, task.end, task.sandbox) == (TaskState.CANCELLED, TaskEnd.CANCELLED, None)
        assert not await shop.records.list_sandboxes()
    finally:
        await desk.close()
