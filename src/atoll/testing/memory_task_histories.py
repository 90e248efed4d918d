"""Looking back at tasks, as MemoryRecords does."""

from __future__ import annotations

from datetime import datetime

from atoll.domain.task import TaskState
from atoll.records.task_histories import ERROR_CHARS, TaskBrief, TaskHistories
from atoll.records.tasks import TaskRecords

EVERYTHING = 1_000_000_000
UNENDED = (TaskState.QUEUED, TaskState.RUNNING, TaskState.ENDING)


class MemoryTaskHistories(TaskHistories, TaskRecords):
    """What it needs of tasks it asks for by their contract."""

    async def brief_tasks(
        self, *, owner: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[TaskBrief]:
        found = [
            TaskBrief(
                one.id,
                one.spec.workspace,
                one.thread,
                one.state,
                one.end,
                one.error[:ERROR_CHARS],
                one.started_at,
                one.ended_at,
            )
            for one in await self.list_tasks(owner=owner, limit=EVERYTHING)
            if one.ended_at is not None and (since is None or one.ended_at >= since)
        ]
        found.sort(key=lambda one: one.id)
        return sorted(found, key=lambda one: one.ended_at, reverse=True)[:limit]

    async def count_active_threads(self, *, owner: str | None = None) -> int:
        return len({one.thread for one in await self.list_tasks(owner=owner, states=UNENDED, limit=EVERYTHING)})
