"""What every records store must tell of bills, as tests; see `records_conformance` for its fixture `stores`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from atoll.domain.bill import TasksEnded
from atoll.domain.ids import new_id
from atoll.domain.ledger import Use, UseKind
from atoll.domain.price import Cost, TokenUse
from atoll.domain.task import Task, TaskState
from atoll.records.base import Records
from atoll.records.ledger import UseQuery
from atoll.testing.tasks_conformance import NOW, a_task, added

Stores = tuple[Records, Records]
A_SECOND = timedelta(seconds=1)


async def used(store: Records, task: str, *, account: str = "key_a", at: datetime = NOW, **fields: Any) -> None:
    """One call of a model: 100 tokens in and 10 out, which cost 15 and 5."""
    values: dict[str, Any] = {"kind": UseKind.MODEL, "cost": Cost(15, 5), "tokens": TokenUse(100, 10), **fields}
    named: dict[str, Any] = {"credential": account, "thread": f"thread of {task}", "workspace": "ws_1"}
    await store.add_use(Use(new_id("use"), account, at=at, task=task, **(named | values)), at)


async def ended(store: Records, state: TaskState = TaskState.SUCCEEDED, *, after_s: float = 10, **changes: Any) -> Task:
    """A task that ran for five seconds."""
    started = NOW + timedelta(seconds=after_s - 5)
    task = await added(store, a_task(**changes))
    task = await store.swap_task(task.to(TaskState.RUNNING, started_at=started))
    if state is not TaskState.CANCELLED:
        task = await store.swap_task(task.to(TaskState.ENDING))
    return await store.swap_task(task.to(state, ended_at=NOW + timedelta(seconds=after_s)))


class BillRecordsConformance:
    """`stores` are two connections to one store."""

    @pytest.fixture
    async def stores(self) -> Stores:
        raise NotImplementedError("give a fixture `stores`")

    async def test_a_bill_has_the_sums_of_the_tasks_uses_and_how_it_ended(self, stores: Stores) -> None:
        task = await ended(stores[0])
        await used(stores[0], task.id)
        await used(stores[0], task.id, at=NOW + A_SECOND)
        compute: dict[str, Any] = {"kind": UseKind.COMPUTE, "cost": Cost(7), "tokens": TokenUse(), "seconds": 5.0}
        await used(stores[0], task.id, **compute)
        (bill,) = await stores[1].list_task_bills("key_a")
        assert (bill.task, bill.credential, bill.thread, bill.workspace) == (task.id, "key_a", task.thread, "ws_1")
        assert (bill.at, bill.agent, bill.state) == (task.ended_at, "command", TaskState.SUCCEEDED)
        assert bill.duration_s == pytest.approx(5.0)
        assert (bill.input_tokens, bill.output_tokens) == (200, 20)
        assert (bill.input_cost, bill.output_cost, bill.other_cost) == (30, 10, 7)

    async def test_one_that_used_nothing_is_told_and_one_that_runs_is_not(self, stores: Stores) -> None:
        done = await ended(stores[0], TaskState.FAILED)
        running = await added(stores[0], a_task())
        await used(stores[0], running.id)
        (bill,) = await stores[1].list_task_bills("key_a")
        assert (bill.task, bill.state, bill.input_tokens) == (done.id, TaskState.FAILED, 0)

    async def test_internal_uses_and_those_of_others_are_in_no_bill(self, stores: Stores) -> None:
        hidden = await ended(stores[0], internal=True)
        await used(stores[0], hidden.id, internal=True)
        await used(stores[0], "task_gone", internal=True)
        theirs = await ended(stores[0], owner="key_b")
        await used(stores[0], theirs.id, account="key_b")
        assert await stores[1].list_task_bills("key_a") == []
        assert await stores[1].count_tasks_ended("key_a") == TasksEnded()
        assert [one.task for one in await stores[1].list_task_bills("key_b")] == [theirs.id]

    async def test_bills_are_told_newest_first_in_pages_and_within_a_window(self, stores: Stores) -> None:
        made = [await ended(stores[0], after_s=10 * n) for n in (3, 1, 2)]
        in_order = [made[0].id, made[2].id, made[1].id]
        assert [one.task for one in await stores[1].list_task_bills("key_a")] == in_order
        pages = [await stores[1].list_task_bills("key_a", limit=2, offset=offset) for offset in (0, 2, 3)]
        assert [[one.task for one in page] for page in pages] == [in_order[:2], in_order[2:], []]
        since, until = made[2].ended_at, made[0].ended_at
        window = await stores[1].list_task_bills("key_a", since=since, until=until)
        assert [one.task for one in window] == [made[2].id]
        assert await stores[1].count_tasks_ended("key_a", since=since, until=until) == TasksEnded(succeeded=1)

    async def test_what_is_left_of_forgotten_tasks_follows_the_others(self, stores: Stores) -> None:
        old = [await ended(stores[0], after_s=n) for n in (1, 2)]
        for n, task in enumerate(old):
            await used(stores[0], task.id, at=NOW + (n + 1) * A_SECOND)
        new = await ended(stores[0], TaskState.CANCELLED, after_s=100)
        assert await stores[0].prune_tasks(NOW + 50 * A_SECOND) == 2
        found = await stores[1].list_task_bills("key_a")
        assert [one.task for one in found] == [new.id, old[1].id, old[0].id]
        forgotten = replace(found[1], at=NOW)
        assert (forgotten.state, forgotten.thread, forgotten.workspace) == (None, f"thread of {old[1].id}", "ws_1")
        assert (forgotten.input_tokens, forgotten.input_cost, forgotten.credential) == (100, 15, "key_a")
        pages = [await stores[1].list_task_bills("key_a", limit=1, offset=offset) for offset in range(4)]
        assert [[one.task for one in page] for page in pages] == [[new.id], [old[1].id], [old[0].id], []]
        assert await stores[1].count_tasks_ended("key_a") == TasksEnded(cancelled=1, forgotten=2)
        (window,) = await stores[1].list_task_bills("key_a", until=NOW + 2 * A_SECOND)
        assert window.task == old[0].id

    async def test_a_forgotten_task_ended_with_its_last_use(self, stores: Stores) -> None:
        for task, seconds in (("t1", (1, 5)), ("t2", (1, 2)), ("t3", (4,))):
            for second in seconds:
                await used(stores[0], task, at=NOW + second * A_SECOND)
        since, until = NOW + 3 * A_SECOND, NOW + 5 * A_SECOND
        for after, before, names in (
            (since, None, ["t1", "t3"]),
            (None, until, ["t3", "t2"]),
            (since, until, ["t3"]),
        ):
            found = await stores[1].list_task_bills("key_a", since=after, until=before)
            assert [one.task for one in found] == names
            counted = await stores[1].count_tasks_ended("key_a", since=after, until=before)
            assert counted == TasksEnded(forgotten=len(names))
        (first, _) = await stores[1].list_task_bills("key_a", since=since)
        assert first.input_tokens == 200, "what it used before counts too"

    async def test_sums_are_told_apart_by_payer_and_kind_and_count_tasks_and_seconds(self, stores: Stores) -> None:
        compute: dict[str, Any] = {"kind": UseKind.COMPUTE, "cost": Cost(7), "tokens": TokenUse(), "seconds": 2.25}
        for task, account, more in (("t1", "key_a", {}), ("t1", "key_a", compute), ("t2", "key_b", compute)):
            await used(stores[0], task, account=account, **more)
        by_account = await stores[1].total_uses(UseQuery(), by="account")
        assert [(one.name, one.uses, one.tasks, one.seconds) for one in by_account] == [
            ("key_a", 2, 1, 2.25),
            ("key_b", 1, 1, 2.25),
        ]
        by_kind = await stores[1].total_uses(UseQuery(), by="kind")
        assert [(one.name, one.tasks, one.seconds) for one in by_kind] == [("model", 1, 0.0), ("compute", 2, 4.5)]
        (everything,) = await stores[1].total_uses(UseQuery())
        assert (everything.tasks, everything.seconds) == (2, 4.5)
