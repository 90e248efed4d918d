"""Looking back at tasks in SQL; `sql.py` inherits it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from atoll.domain.task import TaskEnd, TaskState
from atoll.records.schema import tasks
from atoll.records.sql_store import SqlStore
from atoll.records.task_histories import ERROR_CHARS, TaskBrief, TaskHistories

_BRIEF = (
    *(tasks.c.id, tasks.c.workspace, tasks.c.thread, tasks.c.state, tasks.c.end, tasks.c.started_at, tasks.c.ended_at),
    func.substr(tasks.c.error, 1, ERROR_CHARS).label("error"),
)


class SqlTaskHistories(SqlStore, TaskHistories):
    """See `TaskHistories` for what each method does."""

    async def brief_tasks(
        self, *, owner: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[TaskBrief]:
        query: Any = select(*_BRIEF).where(tasks.c.ended_at.is_not(None))
        if owner is not None:
            query = query.where(tasks.c.owner == owner)
        if since is not None:
            query = query.where(tasks.c.ended_at >= since)
        return await self._all(query.order_by(tasks.c.ended_at.desc(), tasks.c.id).limit(limit), _brief)

    async def count_active_threads(self, *, owner: str | None = None) -> int:
        query = select(func.count(tasks.c.thread.distinct())).where(tasks.c.live)
        if owner is not None:
            query = query.where(tasks.c.owner == owner)
        return await self._database.read(lambda connection: int(connection.execute(query).scalar_one()))


def _brief(row: Mapping[str, Any]) -> TaskBrief:
    end = None if row["end"] is None else TaskEnd(row["end"])
    state, moments = TaskState(row["state"]), (row["started_at"], row["ended_at"])
    return TaskBrief(row["id"], row["workspace"], row["thread"], state, end, row["error"], *moments)
