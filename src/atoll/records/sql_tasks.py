"""Tasks in SQL: the tasks themselves, what happened in them, threads, and who runs which; `sql.py` inherits it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.task import Task, TaskEvent, TaskState, Thread
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.schema import Utc, task_events, tasks, threads
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import hold_owner
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    lock_owner,
    not_swapped,
    owned_by,
    pieces,
    storable,
    swap,
    swap_values,
)
from atoll.records.task_rows import event_of, event_row, task_of, task_row, thread_of, thread_row
from atoll.records.tasks import TaskRecords, too_many_tasks

Query = Any  # of several columns: SQLAlchemy types those by each

_ADD = Prepared(insert(tasks).inline())
_GET = Prepared(select(tasks).where(tasks.c.id == bindparam("wanted")))
# Who runs a task is not part of its state: only `claim_tasks` and `renew_claims` say it.
_SWAP = swap(tasks, {"created_at", "claimed_by", "claimed_until"})
_ADD_EVENT = Prepared(insert(task_events).inline())
_ADD_THREAD = Prepared(insert(threads).inline())
_GET_THREAD = Prepared(select(threads).where(threads.c.id == bindparam("wanted")))
_SWAP_THREAD = swap(threads, {"created_at"})
_unended: Query = select(func.count().label("tasks")).select_from(tasks).where(tasks.c.live)
_COUNT = Prepared(_unended.where(tasks.c.owner == bindparam("of")))
_CLAIM = Prepared(
    update(tasks)
    .where(tasks.c.id == bindparam("of"))
    .values(claimed_by=bindparam("server"), claimed_until=bindparam("until"), version=tasks.c.version + 1)
)


def _claimable() -> Query:
    """Tasks that nobody runs, those that ran first; each owner's queue by turns, what it has running counted."""
    earlier = tasks.alias("earlier")
    before = (earlier.c.created_at < tasks.c.created_at) | (
        (earlier.c.created_at == tasks.c.created_at) & (earlier.c.id < tasks.c.id)
    )
    queued = tasks.c.state == TaskState.QUEUED.value
    waits = queued & select(earlier.c.id).where(earlier.c.thread == tasks.c.thread, earlier.c.live, before).exists()
    free = (tasks.c.claimed_by == "") | (tasks.c.claimed_until <= bindparam("now", type_=Utc()))
    begun = case((queued & free, 1), else_=0)
    turn = func.row_number().over(partition_by=tasks.c.owner, order_by=(begun, tasks.c.created_at, tasks.c.id))
    turns = select(tasks.c.id, turn.label("turn")).where(tasks.c.live, ~waits).subquery()
    query: Query = (
        select(tasks)
        .join(turns, turns.c.id == tasks.c.id)
        .where(free | (tasks.c.claimed_by == bindparam("own")))
        .where(~queued | (turns.c.turn <= bindparam("per_owner")))
        .order_by(case((queued, 1), else_=0), turns.c.turn, tasks.c.created_at, tasks.c.id)
        .limit(bindparam("most"))
    )
    return query


EVERY = 2**31 - 1
_CLAIMABLE = _claimable()


class SqlTasks(SqlStore, TaskRecords):
    """See `TaskRecords` for what each method does."""

    async def add_task(self, task: Task, thread: Thread, event: Event, *, most_queued: int | None = None) -> Thread:
        row, happened = storable(task_row(task)), event_values(event)

        def add(connection: Connection) -> Thread:
            lock_owner(connection, Lock.TASKS, task.owner)
            hold_owner(connection, task.owner)
            if most_queued is not None:
                counted = _COUNT.first(connection, {"of": task.owner}) or {}
                if (there := int(counted.get("tasks", 0))) >= most_queued:
                    raise too_many_tasks(there, most_queued)
            stored = _continued(connection, thread, task)
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"task {task.id} exists already") from error
            append_event(connection, happened)
            return stored

        return await self._commit(add)

    async def swap_task(self, task: Task, event: Event | None = None, *, told: Sequence[TaskEvent] = ()) -> Task:
        after = replace(task, version=task.version + 1)
        row = swap_values(task_row(after), task.version)
        rows = [storable(event_row(task.id, one)) for one in told]
        happened = None if event is None else event_values(event)

        def change(connection: Connection) -> None:
            if _SWAP.run(connection, row) != 1:
                raise not_swapped(connection, tasks, "task", task.id)
            try:
                _ADD_EVENT.run_many(connection, rows)
            except IntegrityError as error:
                raise StaleVersion(f"task {task.id}: somebody told of it meanwhile") from error
            if happened is not None:
                append_event(connection, happened)

        # What only tells how far it is may be lost to a power cut: the agent is, too.
        await self._commit(change, durable=happened is not None)
        return after

    async def get_task(self, task_id: str) -> Task | None:
        return await self._one(_GET, task_of, wanted=task_id)

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
        columns: list[Any] = [tasks]
        if output_chars is not None:
            columns = [one for one in tasks.c if one is not tasks.c.output]
            columns.append(func.substr(tasks.c.output, 1, output_chars).label("output"))
        query: Query = (
            select(*columns).order_by(tasks.c.created_at.desc(), tasks.c.id.desc()).limit(limit).offset(offset)
        )
        for column, wanted in ((tasks.c.owner, owner), (tasks.c.thread, thread), (tasks.c.workspace, workspace)):
            if wanted is not None:
                query = query.where(column == wanted)
        if states is not None:
            query = query.where(tasks.c.state.in_(sorted(state.value for state in states)))
        return await self._all(query, task_of)

    async def waiting_tasks(self, *, limit: int) -> list[str]:
        queued = tasks.c.live & (tasks.c.state == TaskState.QUEUED.value)
        query = select(tasks.c.id).where(queued).order_by(tasks.c.created_at, tasks.c.id).limit(limit)
        return await self._all(query, lambda row: row["id"])

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
        known = set(running or ())
        wanted = {
            "now": now,
            "own": "" if running is None else server,  # "": nobody's own
            "most": limit + len(known),
            "per_owner": EVERY if per_owner is None else per_owner,
        }

        def claim(connection: Connection) -> list[Task]:
            lock_owner(connection, Lock.CLAIMS, "")
            rows = connection.execute(_CLAIMABLE, wanted).mappings()
            found = [task_of(row) for row in rows if row["id"] not in known][:limit]
            _CLAIM.run_many(connection, [{"of": one.id, "server": server, "until": until} for one in found])
            return [replace(one, claimed_by=server, claimed_until=until, version=one.version + 1) for one in found]

        return await self._database.write(claim)

    async def renew_claims(self, server: str, task_ids: Collection[str], until: datetime) -> set[str]:
        wanted = sorted(task_ids)
        theirs = (tasks.c.claimed_by == server) & tasks.c.live

        def renew(connection: Connection) -> set[str]:
            lock_owner(connection, Lock.CLAIMS, "")
            kept: set[str] = set()
            for some in pieces(wanted):
                kept |= set(connection.execute(select(tasks.c.id).where(theirs, tasks.c.id.in_(some))).scalars())
            for some in pieces(sorted(kept)):
                connection.execute(update(tasks).where(tasks.c.id.in_(some)).values(claimed_until=until))
            return kept

        return await self._database.write(renew) if wanted else set()

    async def task_events(self, task_id: str, *, after: int = 0, limit: int = 1000) -> list[TaskEvent]:
        query = select(task_events).where(task_events.c.task == task_id, task_events.c.seq > after)
        return await self._all(query.order_by(task_events.c.seq).limit(limit), event_of)

    async def get_thread(self, thread_id: str) -> Thread | None:
        return await self._one(_GET_THREAD, thread_of, wanted=thread_id)

    async def swap_thread(self, thread: Thread, event: Event | None = None) -> Thread:
        after = replace(thread, version=thread.version + 1)
        await self._swap(_SWAP_THREAD, threads, "thread", thread_row(after), event)
        return after

    async def list_threads(
        self, owner: str | tuple[str, ...], *, active: bool = False, limit: int = 1000, offset: int = 0
    ) -> list[Thread]:
        query = select(threads).where(owned_by(threads, owner), threads.c.deleted_at.is_(None))
        if active:
            query = query.where(threads.c.id.in_(select(tasks.c.thread).where(owned_by(tasks, owner), tasks.c.live)))
        query = query.order_by(threads.c.last_at.desc(), threads.c.id.desc()).limit(limit).offset(offset)
        return await self._all(query, thread_of)

    async def prune_tasks(self, ended_before: datetime, *, limit: int = 1000) -> int:
        old = select(tasks.c.id).where(tasks.c.ended_at < ended_before, ~tasks.c.live)
        old = old.order_by(tasks.c.ended_at, tasks.c.id).limit(limit)

        def prune(connection: Connection) -> int:
            gone = list(connection.execute(old).scalars())
            for some in pieces(gone):
                connection.execute(delete(task_events).where(task_events.c.task.in_(some)))
                connection.execute(delete(tasks).where(tasks.c.id.in_(some)))
            return len(gone)

        return await self._database.write(prune)


def _continued(connection: Connection, thread: Thread, task: Task) -> Thread:
    """The thread with one task more, stored."""
    row = _GET_THREAD.first(connection, {"wanted": thread.id})
    if row is None:
        made = replace(thread, tasks=1, last_at=task.created_at)
        _ADD_THREAD.run(connection, storable(thread_row(made)))
        return made
    found = thread_of(row)
    if found.deleted_at is not None:
        raise NotFound(f"thread {thread.id} does not exist")
    last_at = max(found.last_at, task.created_at)
    after = replace(found, tasks=found.tasks + 1, last_at=last_at, version=found.version + 1)
    if _SWAP_THREAD.run(connection, swap_values(thread_row(after), found.version)) != 1:
        raise StaleVersion(f"thread {thread.id} changed since it was read")
    return after
