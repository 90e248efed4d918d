"""History: how the tasks of the last day went, of everybody together or of one principal's, for those who watch.

What is told of everybody are numbers and reasons: no id, no output and no error text of a tenant's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.task import TaskState
from atoll.records.base import Records
from atoll.records.task_histories import TaskBrief
from atoll.services.clock import Clock, utc_now

SINCE = timedelta(hours=24)
COUNTED_MAX = 1_000  # the newest
FRESH_S = 5.0  # who asks for everybody's is anybody: the records are asked once in this time


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """Of tasks that ended within a day, the newest thousand at most."""

    ended: Sequence[TaskBrief]
    active_threads: int

    @property
    def succeeded(self) -> int:
        return sum(one.state is TaskState.SUCCEEDED for one in self.ended)

    @property
    def failed(self) -> list[TaskBrief]:
        """Those that somebody ended are no failures."""
        return [one for one in self.ended if one.state is TaskState.FAILED]

    @property
    def success_percent(self) -> float:
        """100 where nothing was tried."""
        tried = self.succeeded + len(self.failed)
        return 100.0 * self.succeeded / tried if tried else 100.0

    @property
    def average_s(self) -> float:
        """From the start to the end; 0 where there is none."""
        took = [seconds for one in self.ended if (seconds := duration_s(one)) is not None]
        return sum(took) / len(took) if took else 0.0


class TaskHistory:
    """One for a server."""

    def __init__(self, records: Records, clock: Clock = utc_now) -> None:
        self._records = records
        self._clock = clock
        self._all: TaskStatistics | None = None
        self._looked = -FRESH_S
        self._lock = asyncio.Lock()

    async def of_all(self) -> TaskStatistics:
        """Everybody's, as it was a few seconds ago at most. Unavailable."""
        async with self._lock:
            if self._all is None or monotonic() - self._looked >= FRESH_S:
                since = self._clock() - SINCE
                ended = await self._records.brief_tasks(since=since, limit=COUNTED_MAX)
                self._all = TaskStatistics(ended, await self._records.count_active_threads())
                self._looked = monotonic()
            return self._all

    async def of(self, principal: Principal, *, limit: int) -> list[TaskBrief]:
        """The principal's own tasks that ended, the last one first. Needs `read`."""
        principal.require(Scope.READ)
        if not principal.reaches(principal.id, principal.id):  # it is bound to single things, which tasks are not
            return []
        return await self._records.brief_tasks(owner=principal.id, limit=limit)


def duration_s(one: TaskBrief) -> float | None:
    """How long it ran; None: it never did."""
    return None if one.started_at is None else (one.ended_at - one.started_at).total_seconds()
