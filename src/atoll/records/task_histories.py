"""The records contract of looking back at tasks: how those that ended went, without all that they wrote.

`services/tasks/history.py` calls it; `atoll.testing.task_histories_conformance` holds every store to these docstrings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from atoll.domain.task import TaskEnd, TaskState

ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class TaskBrief:
    """One task that has ended. `error` is the beginning of it."""

    id: str
    workspace: str
    thread: str
    state: TaskState
    end: TaskEnd | None
    error: str
    started_at: datetime | None
    ended_at: datetime


class TaskHistories(ABC):
    """`owner` None: everybody's."""

    @abstractmethod
    async def brief_tasks(
        self, *, owner: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[TaskBrief]:
        """Those that ended since then, the last one first."""

    @abstractmethod
    async def count_active_threads(self, *, owner: str | None = None) -> int:
        """How many threads have a task that has not ended."""
