"""The bills' part of MemoryRecords, made of its tasks and uses."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime

from atoll.domain.bill import TaskBill, TasksEnded
from atoll.domain.ledger import Use, UseKind
from atoll.domain.task import Task, TaskState
from atoll.records.bills import BillRecords
from atoll.records.ledger import LedgerRecords, UseQuery
from atoll.records.tasks import TaskRecords

EVERYTHING = 1_000_000_000


class MemoryBills(BillRecords, LedgerRecords, TaskRecords):
    """What it needs of the others it asks for by their contracts."""

    async def list_task_bills(
        self,
        account: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[TaskBill]:
        return (await self._bills(account, since, until))[offset : offset + limit]

    async def count_tasks_ended(
        self, account: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> TasksEnded:
        counts = Counter(one.state for one in await self._bills(account, since, until))
        ended = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, None)
        return TasksEnded(*(counts[state] for state in ended))

    async def _bills(self, account: str, since: datetime | None, until: datetime | None) -> list[TaskBill]:
        known = {one.id: one for one in await self.list_tasks(owner=account, limit=EVERYTHING)}
        used: dict[str, list[Use]] = defaultdict(list)
        for use in await self.list_uses(UseQuery(account), limit=EVERYTHING):
            if use.task is not None:
                used[use.task].append(use)
        bills = [_of_task(one, used[one.id]) for one in known.values() if one.ended and not one.internal]
        forgotten = [task for task in used if task not in known and await self.get_task(task) is None]
        old = [_of_uses(task, used[task]) for task in forgotten]
        return [
            one
            for some in (bills, old)
            for one in sorted(some, key=lambda one: (one.at, one.task), reverse=True)
            if (since is None or one.at >= since) and (until is None or one.at < until)
        ]


def _of_task(task: Task, uses: list[Use]) -> TaskBill:
    assert task.ended_at is not None
    duration_s = 0.0 if task.started_at is None else (task.ended_at - task.started_at).total_seconds()
    named = (task.id, task.credential, task.thread, task.spec.workspace, task.ended_at)
    return TaskBill(*named, task.spec.agent, task.state, duration_s, *_sums(uses))


def _of_uses(task: str, uses: list[Use]) -> TaskBill:
    one = uses[0]
    named = (task, one.credential, one.thread or "", one.workspace or "", max(use.at for use in uses))
    return TaskBill(*named, "", None, None, *_sums(uses))


def _sums(uses: list[Use]) -> tuple[int, int, int, int, int]:
    calls = [one for one in uses if one.kind is UseKind.MODEL]
    return (
        sum(one.tokens.input for one in uses),
        sum(one.tokens.output for one in uses),
        sum(one.cost.input for one in calls),
        sum(one.cost.output for one in calls),
        sum(one.cost.total for one in uses if one.kind is not UseKind.MODEL),
    )
