"""The records contract of tasks: tasks, their events, and the threads that they continue.

`services/tasks` calls it; `atoll.testing.tasks_conformance` holds every store to these docstrings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime

from atoll.domain.errors import QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.task import Task, TaskEvent, TaskState, Thread


class TaskRecords(ABC):
    """Tasks are changed by compare-and-set on their version, each change with the events that tell of it."""

    @abstractmethod
    async def add_task(self, task: Task, thread: Thread, event: Event, *, most_queued: int | None = None) -> Thread:
        """Insert the task, and the thread when there is none of its id; the thread's `tasks` and `last_at` move on.
        QuotaExceeded when the owner has `most_queued` tasks that have not ended, counted in the same atomic step.
        NotFound when the thread was deleted."""

    @abstractmethod
    async def swap_task(self, task: Task, event: Event | None = None, *, told: Sequence[TaskEvent] = ()) -> Task:
        """As `swap_sandbox`, with task events appended in the same step. Who claims it stays as stored."""

    @abstractmethod
    async def get_task(self, task_id: str) -> Task | None: ...

    @abstractmethod
    async def list_tasks(
        self,
        *,
        owner: str | None = None,
        states: Collection[TaskState] | None = None,
        thread: str | None = None,
        workspace: str | None = None,
        limit: int = 100,
        offset: int = 0,
        output_chars: int | None = None,
    ) -> list[Task]:
        """Newest first; with so many characters of each output, or all."""

    @abstractmethod
    async def waiting_tasks(self, *, limit: int) -> list[str]:
        """The ids of those that are queued, oldest first."""

    @abstractmethod
    async def claim_tasks(
        self,
        server: str,
        now: datetime,
        until: datetime,
        *,
        limit: int,
        per_owner: int | None = None,
        running: Collection[str] | None = None,
    ) -> list[Task]:
        """Tasks that have not ended and that no server claims, or whose claim is over: claimed by `server` now, with a
        new version. Those that run come first; of queued ones each owner's oldest by turns, so that one with many waits
        beside one with few, and none begins for an owner who has `per_owner` under way. A queued one whose thread has
        an earlier task that has not ended waits for that. Two servers never get the same. With `running`, what this
        one runs, it takes up again what is claimed in its name and is not among that."""

    @abstractmethod
    async def renew_claims(self, server: str, task_ids: Collection[str], until: datetime) -> set[str]:
        """Those that it still has, claimed until then; no new version."""

    @abstractmethod
    async def task_events(self, task_id: str, *, after: int = 0, limit: int = 1000) -> list[TaskEvent]:
        """In order of `seq`."""

    @abstractmethod
    async def get_thread(self, thread_id: str) -> Thread | None:
        """Deleted ones too."""

    @abstractmethod
    async def swap_thread(self, thread: Thread, event: Event | None = None) -> Thread:
        """As `swap_sandbox`."""

    @abstractmethod
    async def list_threads(
        self, owner: str | tuple[str, ...], *, active: bool = False, limit: int = 1000, offset: int = 0
    ) -> list[Thread]:
        """Not those that were deleted, the last used first; `active`: those with a task that has not ended."""

    @abstractmethod
    async def prune_tasks(self, ended_before: datetime, *, limit: int = 1000) -> int:
        """Delete those that ended before, with their events, the longest ended first; how many."""


def too_many_tasks(there: int, most: int) -> QuotaExceeded:
    message = f"too many tasks wait or run: {there} of {most}; try again when one has ended"
    return QuotaExceeded(message, quota="tasks", used=there, limit=most, retry_after_s=5)
