"""What every store tells of tasks that ended; tests run it against each."""

from __future__ import annotations

from datetime import timedelta

from atoll.domain.task import TaskEnd, TaskState
from atoll.records.base import Records
from atoll.records.task_histories import ERROR_CHARS
from atoll.testing.tasks_conformance import NOW, a_task, added


class TaskHistoriesConformance:
    """`store` is empty."""

    async def test_who_has_no_tasks_has_no_history(self, store: Records) -> None:
        assert await store.brief_tasks() == []
        assert await store.count_active_threads() == 0

    async def test_those_that_ended_are_told_the_last_one_first_and_without_what_they_wrote(
        self, store: Records
    ) -> None:
        for number in range(3):
            task = await added(store, a_task(after_s=number))
            ended = task.to(
                TaskState.FAILED,
                end=TaskEnd.FAULT,
                error="é" * 1_000,
                output="much",
                started_at=NOW,
                ended_at=NOW + timedelta(seconds=10 - number),
            )
            await store.swap_task(ended)
        await added(store, a_task())
        found = await store.brief_tasks(owner="key_a")
        assert [one.ended_at for one in found] == [NOW + timedelta(seconds=after) for after in (10, 9, 8)]
        assert {(one.state, one.end, one.error, one.workspace, one.started_at) for one in found} == {
            (TaskState.FAILED, TaskEnd.FAULT, "é" * ERROR_CHARS, "ws_1", NOW)
        }
        assert await store.brief_tasks(since=NOW + timedelta(seconds=9)) == found[:2]
        assert await store.brief_tasks(limit=1) == found[:1]
        assert await store.brief_tasks(owner="key_b") == []

    async def test_threads_are_active_while_one_of_their_tasks_has_not_ended(self, store: Records) -> None:
        first = await added(store, a_task())
        await added(store, a_task(thread=first.thread))
        await added(store, a_task("key_b"))
        assert (await store.count_active_threads(), await store.count_active_threads(owner="key_a")) == (2, 1)
        await store.swap_task(first.to(TaskState.CANCELLED))
        assert await store.count_active_threads(owner="key_a") == 1
