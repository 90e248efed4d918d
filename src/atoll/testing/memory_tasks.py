"""The tasks' part of MemoryRecords, in dictionaries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.task import Task, TaskEvent, TaskState, Thread
from atoll.records.tasks import TaskRecords, too_many_tasks

LONG_AGO = datetime.min.replace(tzinfo=UTC)


class MemoryTasks(TaskRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, Task] = {}
        self._threads: dict[str, Thread] = {}
        self._told: dict[str, list[TaskEvent]] = {}

    async def add_task(self, task: Task, thread: Thread, event: Event, *, most_queued: int | None = None) -> Thread:
        self._check()
        self._hold_owner(task.owner)
        there = sum(one.owner == task.owner and not one.ended for one in self._tasks.values())
        if most_queued is not None and there >= most_queued:
            raise too_many_tasks(there, most_queued)
        if task.id in self._tasks:
            raise Conflict(f"task {task.id} exists already")
        found = self._threads.get(thread.id)
        if found is None:
            after = replace(thread, tasks=1, last_at=task.created_at)
        elif found.deleted_at is not None:
            raise NotFound(f"thread {thread.id} does not exist")
        else:
            last_at = max(found.last_at, task.created_at)
            after = replace(found, tasks=found.tasks + 1, last_at=last_at, version=found.version + 1)
        self._threads[thread.id] = after
        self._tasks[task.id] = task
        self._log(event)
        return after

    async def swap_task(self, task: Task, event: Event | None = None, *, told: Sequence[TaskEvent] = ()) -> Task:
        self._check()
        stored = self._tasks.get(task.id)
        if stored is None:
            raise NotFound(f"task {task.id} does not exist")
        known = self._told.setdefault(task.id, [])
        if stored.version != task.version or {one.seq for one in known} & {one.seq for one in told}:
            raise StaleVersion()
        claim = {"claimed_by": stored.claimed_by, "claimed_until": stored.claimed_until}
        self._tasks[task.id] = replace(task, version=task.version + 1, **claim)
        known += told
        self._log(event)
        return replace(task, version=task.version + 1)

    async def get_task(self, task_id: str) -> Task | None:
        self._check()
        return self._tasks.get(task_id)

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
        self._check()
        found = [
            one
            for one in self._tasks.values()
            if owner in (None, one.owner)
            and (states is None or one.state in states)
            and thread in (None, one.thread)
            and workspace in (None, one.spec.workspace)
        ]
        found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        return [replace(one, output=one.output[:output_chars]) for one in found[offset : offset + limit]]

    async def waiting_tasks(self, *, limit: int) -> list[str]:
        self._check()
        queued = [one for one in self._tasks.values() if one.state is TaskState.QUEUED]
        queued.sort(key=lambda one: (one.created_at, one.id))
        return [one.id for one in queued[:limit]]

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
        self._check()

        def free(one: Task) -> bool:
            own = running is not None and one.claimed_by == server and one.id not in running
            return own or not one.claimed_by or (one.claimed_until or LONG_AGO) <= now

        live = sorted((one for one in self._tasks.values() if not one.ended), key=lambda one: (one.created_at, one.id))
        threads: set[str] = set()
        turns: dict[str, list[Task]] = {}
        for one in live:
            if one.state is not TaskState.QUEUED or one.thread not in threads:
                turns.setdefault(one.owner, []).append(one)
            threads.add(one.thread)
        wanted: list[tuple[bool, int, Task]] = []
        for theirs in turns.values():
            theirs.sort(key=lambda one: (one.state is TaskState.QUEUED and free(one), one.created_at, one.id))
            for turn, one in enumerate(theirs, 1):
                queued = one.state is TaskState.QUEUED
                if free(one) and (not queued or per_owner is None or turn <= per_owner):
                    wanted.append((queued, turn, one))
        wanted.sort(key=lambda each: (each[0], each[1] if each[0] else 0, each[2].created_at, each[2].id))
        claimed = [
            replace(one, claimed_by=server, claimed_until=until, version=one.version + 1)
            for _, _, one in wanted[:limit]
        ]
        self._tasks |= {one.id: one for one in claimed}
        return claimed

    async def renew_claims(self, server: str, task_ids: Collection[str], until: datetime) -> set[str]:
        self._check()
        kept = {one for one in task_ids if self._is_claimed(server, one)}
        self._tasks |= {one: replace(self._tasks[one], claimed_until=until) for one in kept}
        return kept

    async def task_events(self, task_id: str, *, after: int = 0, limit: int = 1000) -> list[TaskEvent]:
        self._check()
        found = sorted(self._told.get(task_id, ()), key=lambda one: one.seq)
        return [one for one in found if one.seq > after][:limit]

    async def get_thread(self, thread_id: str) -> Thread | None:
        self._check()
        return self._threads.get(thread_id)

    async def swap_thread(self, thread: Thread, event: Event | None = None) -> Thread:
        self._check()
        stored = self._threads.get(thread.id)
        if stored is None:
            raise NotFound(f"thread {thread.id} does not exist")
        if stored.version != thread.version:
            raise StaleVersion()
        after = self._threads[thread.id] = replace(thread, version=thread.version + 1)
        self._log(event)
        return after

    async def list_threads(
        self, owner: str | tuple[str, ...], *, active: bool = False, limit: int = 1000, offset: int = 0
    ) -> list[Thread]:
        self._check()
        owners = (owner,) if isinstance(owner, str) else owner
        busy = {one.thread for one in self._tasks.values() if not one.ended and one.owner in owners}
        found = [one for one in self._threads.values() if one.owner in owners and one.deleted_at is None]
        found = [one for one in found if not active or one.id in busy]
        found.sort(key=lambda one: (one.last_at, one.id), reverse=True)
        return found[offset : offset + limit]

    async def prune_tasks(self, ended_before: datetime, *, limit: int = 1000) -> int:
        self._check()
        ended = sorted((one.ended_at or LONG_AGO, one.id) for one in self._tasks.values() if one.ended)
        old = [task_id for at, task_id in ended if at < ended_before][:limit]
        for task_id in old:
            del self._tasks[task_id]
            self._told.pop(task_id, None)
        return len(old)

    def _is_claimed(self, server: str, task_id: str) -> bool:
        task = self._tasks.get(task_id)
        return task is not None and task.claimed_by == server and not task.ended

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the records are down."""

    @abstractmethod
    def _log(self, event: Event | None) -> None:
        """Keep the event."""

    @abstractmethod
    def _hold_owner(self, owner: str) -> None:
        """NotFound when the owner is gone."""
