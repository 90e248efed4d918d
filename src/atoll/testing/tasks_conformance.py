"""What every store of tasks does; tests run it against each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import KeyKind
from atoll.domain.price import TokenUse
from atoll.domain.task import McpServer, Task, TaskEnd, TaskEvent, TaskSpec, TaskState, Thread
from atoll.records.base import Records

Stores = tuple[Records, Records]
NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
SOON = NOW + timedelta(seconds=30)


def a_task(owner: str = "key_a", thread: str | None = None, *, after_s: float = 0.0, **changes: Any) -> Task:
    spec = TaskSpec("do it", "ws_1", agent="command", command=("true",))
    thread = thread or new_id("thread")
    made = Task(new_id("task"), owner, owner, spec, thread, NOW + timedelta(seconds=after_s))
    return replace(made, **changes)


def its_thread(task: Task) -> Thread:
    return Thread(task.thread, task.owner, task.spec.workspace, task.spec.agent, task.created_at, task.created_at)


def happened(task: Task, action: str = "task.created") -> Event:
    return Event(action, task.id, tenant=task.owner, actor=task.owner)


async def added(store: Records, task: Task, **options: Any) -> Task:
    await store.add_task(task, its_thread(task), happened(task), **options)
    return task


class TaskRecordsConformance:
    """`stores` are two connections to one store."""

    async def test_a_task_comes_back_as_it_was_stored(self, stores: Stores) -> None:
        servers = (McpServer("files", ("mcp-files", "--root", "/")), McpServer("web", url="http://127.0.0.1:1/mcp"))
        spec = TaskSpec(
            "Grüße \u2028", "ws_1", "codex", "gpt", "thread_x", "be kind", servers, ("a", ""), 2**40, 1.5, "none"
        )
        task = a_task(
            spec=spec,
            tokens=TokenUse(1, 2, 1, 1, True),
            cost=2**50,
            internal=True,
            lineage=("key_1", "key_2"),
            kind=KeyKind.INTERNAL,
            plan="small",
            read_offset=2**40,
            output="o" * 10_000,
        )
        await added(stores[0], task)
        assert await stores[1].get_task(task.id) == task
        ended = task.to(TaskState.FAILED, end=TaskEnd.LOST, error="gone", sandbox="sess_1", process="p1")
        stored = await stores[1].swap_task(ended, happened(task, "task.ended"))
        assert await stores[0].get_task(task.id) == stored == replace(ended, version=2)
        events = await stores[0].list_events(target=task.id)
        assert [one.action for one in events] == ["task.created", "task.ended"]

    async def test_a_second_one_of_that_id_is_refused_and_changes_nothing(self, stores: Stores) -> None:
        task = await added(stores[0], a_task())
        with pytest.raises(Conflict):
            await added(stores[1], task)
        thread = await stores[0].get_thread(task.thread)
        assert thread is not None and thread.tasks == 1

    async def test_a_thread_goes_on_with_each_task(self, stores: Stores) -> None:
        first = await added(stores[0], a_task())
        second = a_task(thread=first.thread, after_s=60)
        thread = await stores[1].add_task(second, its_thread(second), happened(second))
        assert (thread.tasks, thread.created_at, thread.last_at) == (2, NOW, second.created_at)
        assert await stores[0].get_thread(first.thread) == thread

    async def test_a_deleted_thread_takes_no_task(self, stores: Stores) -> None:
        first = await added(stores[0], a_task())
        thread = await stores[0].get_thread(first.thread)
        assert thread is not None
        gone = await stores[0].swap_thread(replace(thread, deleted_at=SOON), happened(first, "thread.deleted"))
        assert await stores[1].get_thread(first.thread) == gone
        assert await stores[1].list_threads("key_a") == []
        second = a_task(thread=first.thread)
        with pytest.raises(NotFound):
            await added(stores[1], second)
        assert await stores[0].get_task(second.id) is None

    async def test_threads_are_listed_by_last_use_and_active_ones_alone(self, stores: Stores) -> None:
        old, new = await added(stores[0], a_task()), await added(stores[0], a_task(after_s=5))
        await added(stores[0], a_task("key_b"))
        assert [one.id for one in await stores[1].list_threads("key_a")] == [new.thread, old.thread]
        assert len(await stores[1].list_threads(("key_a", "key_b"))) == 3
        await stores[0].swap_task(new.to(TaskState.CANCELLED))
        assert [one.id for one in await stores[1].list_threads("key_a", active=True)] == [old.thread]
        assert [one.id for one in await stores[1].list_threads("key_a", limit=1, offset=1)] == [old.thread]

    async def test_n_and_more_at_once_are_n(self, stores: Stores) -> None:
        tried = await asyncio.gather(
            *(added(stores[n % 2], a_task(), most_queued=5) for n in range(12)), return_exceptions=True
        )
        assert sum(isinstance(one, Task) for one in tried) == 5
        assert sum(isinstance(one, QuotaExceeded) for one in tried) == 7
        assert len(await stores[0].list_tasks(owner="key_a")) == 5
        await added(stores[0], a_task("key_b"), most_queued=5)
        done = (await stores[0].list_tasks(owner="key_a"))[0]
        await stores[0].swap_task(done.to(TaskState.CANCELLED))
        await added(stores[0], a_task(), most_queued=5)

    async def test_a_stale_change_is_refused_with_what_it_tells(self, stores: Stores) -> None:
        task = await added(stores[0], a_task())
        told = [TaskEvent(1, "output", NOW, {"text": "a\0b \ud800"}), TaskEvent(2, "output", NOW)]
        after = await stores[0].swap_task(task, told=told)
        with pytest.raises(StaleVersion):
            await stores[1].swap_task(task, told=[TaskEvent(3, "output", NOW)])
        with pytest.raises(StaleVersion):
            await stores[1].swap_task(after, told=[TaskEvent(2, "output", NOW)])
        with pytest.raises(NotFound):
            await stores[1].swap_task(replace(task, id="task_none"))
        stored = await stores[1].task_events(task.id)
        assert [one.seq for one in stored] == [1, 2]
        assert stored[0].data["text"].startswith("a\0b ")
        assert [one.seq for one in await stores[1].task_events(task.id, after=1, limit=1)] == [2]
        assert await stores[1].get_task(task.id) == after

    async def test_lists_are_newest_first_and_narrowed(self, stores: Stores) -> None:
        tasks = [await added(stores[0], a_task(after_s=n)) for n in range(4)]
        other = await added(stores[0], a_task("key_b", spec=TaskSpec("x", "ws_2")))
        await stores[0].swap_task(tasks[0].to(TaskState.CANCELLED))
        ids = [one.id for one in tasks]
        assert [one.id for one in await stores[1].list_tasks(owner="key_a")] == ids[::-1]
        assert [one.id for one in await stores[1].list_tasks(owner="key_a", limit=2, offset=1)] == ids[2:0:-1]
        assert [one.id for one in await stores[1].list_tasks(thread=tasks[1].thread)] == [ids[1]]
        assert [one.id for one in await stores[1].list_tasks(workspace="ws_2")] == [other.id]
        assert len(await stores[1].list_tasks(states={TaskState.QUEUED})) == 4
        wrote = await added(stores[0], a_task("key_w", output="grüße" * 10))
        assert await stores[1].list_tasks(owner="key_w") == [wrote]
        assert await stores[1].list_tasks(owner="key_w", output_chars=4) == [replace(wrote, output="grüß")]

    async def test_owners_are_served_by_turns_within_their_bound(self, stores: Stores) -> None:
        many = [await added(stores[0], a_task("key_a", after_s=n)) for n in range(4)]
        few = await added(stores[0], a_task("key_b", after_s=10))
        claimed = await stores[0].claim_tasks("s1", NOW, SOON, limit=2, per_owner=2)
        assert [one.id for one in claimed] == [many[0].id, few.id]
        more = await stores[1].claim_tasks("s2", NOW, SOON, limit=9, per_owner=2)
        assert [one.id for one in more] == [many[1].id]
        assert await stores[1].claim_tasks("s2", NOW, SOON, limit=9, per_owner=2) == []
        assert len(await stores[1].claim_tasks("s2", NOW, SOON, limit=9)) == 2

    async def test_two_servers_never_get_the_same_task(self, stores: Stores) -> None:
        ids = {(await added(stores[0], a_task(f"key_{n % 3}"))).id for n in range(12)}
        got = await asyncio.gather(
            *(stores[n % 2].claim_tasks(f"s{n % 2}", NOW, SOON, limit=3) for n in range(6)),
        )
        claimed = [one.id for some in got for one in some]
        assert len(claimed) == len(set(claimed)) == 12 and set(claimed) == ids

    async def test_a_claim_makes_the_former_servers_view_stale(self, stores: Stores) -> None:
        await added(stores[0], a_task())
        [mine] = await stores[0].claim_tasks("s1", NOW, SOON, limit=1)
        assert (mine.claimed_by, mine.claimed_until) == ("s1", SOON)
        running = await stores[0].swap_task(mine.to(TaskState.RUNNING))
        assert await stores[1].claim_tasks("s2", NOW, SOON, limit=1) == []
        [theirs] = await stores[1].claim_tasks("s2", SOON, SOON + timedelta(seconds=30), limit=1)
        assert theirs.id == mine.id and theirs.state is TaskState.RUNNING
        with pytest.raises(StaleVersion):
            await stores[0].swap_task(running.to(TaskState.ENDING))
        assert await stores[0].renew_claims("s1", [mine.id], SOON) == set()

    async def test_a_renewed_claim_holds_and_disturbs_no_change(self, stores: Stores) -> None:
        await added(stores[0], a_task())
        [mine] = await stores[0].claim_tasks("s1", NOW, SOON, limit=1)
        later = SOON + timedelta(seconds=30)
        assert await stores[1].renew_claims("s1", [mine.id, "task_none"], later) == {mine.id}
        await stores[0].swap_task(mine.to(TaskState.RUNNING))
        assert await stores[1].claim_tasks("s2", SOON, later, limit=1) == []
        assert len(await stores[1].claim_tasks("s2", later, later, limit=1)) == 1

    async def test_a_server_takes_up_its_own_after_a_restart(self, stores: Stores) -> None:
        one, other = await added(stores[0], a_task()), await added(stores[0], a_task(after_s=1))
        assert len(await stores[0].claim_tasks("s1", NOW, SOON, limit=9)) == 2
        assert await stores[1].claim_tasks("s2", NOW, SOON, limit=9, running=()) == []
        again = await stores[1].claim_tasks("s1", NOW, SOON, limit=9, running=[other.id])
        assert [each.id for each in again] == [one.id]

    async def test_who_waits_is_told_oldest_first(self, stores: Stores) -> None:
        young, old = await added(stores[0], a_task(after_s=1)), await added(stores[0], a_task())
        runs = await added(stores[0], a_task())
        await stores[0].swap_task(runs.to(TaskState.RUNNING))
        assert await stores[1].waiting_tasks(limit=9) == [old.id, young.id]
        assert await stores[1].waiting_tasks(limit=1) == [old.id]

    async def test_what_ran_comes_before_what_waits(self, stores: Stores) -> None:
        first, second = await added(stores[0], a_task()), await added(stores[0], a_task(after_s=1))
        await stores[0].swap_task(second.to(TaskState.RUNNING))
        claimed = await stores[0].claim_tasks("s1", NOW, SOON, limit=9, per_owner=1)
        assert [one.id for one in claimed] == [second.id]
        assert (await stores[0].claim_tasks("s1", NOW, SOON, limit=9))[0].id == first.id

    async def test_a_threads_tasks_run_one_after_the_other(self, stores: Stores) -> None:
        first = await added(stores[0], a_task())
        second = await added(stores[0], a_task(thread=first.thread, after_s=1))
        [mine] = await stores[0].claim_tasks("s1", NOW, SOON, limit=9)
        assert mine.id == first.id
        assert await stores[0].claim_tasks("s1", NOW, SOON, limit=9) == []
        await stores[0].swap_task(mine.to(TaskState.CANCELLED))
        assert [one.id for one in await stores[0].claim_tasks("s1", NOW, SOON, limit=9)] == [second.id]

    async def test_old_ones_go_with_their_events_and_live_ones_stay(self, stores: Stores) -> None:
        live, old = await added(stores[0], a_task()), await added(stores[0], a_task())
        ended = old.to(TaskState.CANCELLED, ended_at=NOW)
        await stores[0].swap_task(ended, told=[TaskEvent(1, "task.ended", NOW)])
        assert await stores[1].prune_tasks(NOW) == 0
        assert await stores[1].prune_tasks(SOON) == 1
        assert await stores[1].get_task(old.id) is None
        assert await stores[1].task_events(old.id) == []
        assert await stores[1].get_task(live.id) is not None

    async def test_of_old_ones_those_that_ended_first_go_first(self, stores: Stores) -> None:
        made = [await added(stores[0], a_task()) for _ in range(3)]
        for days, task in zip((1, 3, 2), made, strict=True):
            await stores[0].swap_task(task.to(TaskState.CANCELLED, ended_at=NOW - timedelta(days=days)))
        assert await stores[1].prune_tasks(NOW, limit=2) == 2
        assert [await stores[1].get_task(one.id) is None for one in made] == [False, True, True]
