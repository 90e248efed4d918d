"""Bills in SQL: tasks that ended, with the sums of their uses; `sql.py` inherits it.

Tasks are forgotten after a time and uses never are: the oldest bills are made of uses alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select

from atoll.domain.bill import TaskBill, TasksEnded
from atoll.domain.ledger import UseKind
from atoll.domain.task import TaskState
from atoll.records.bills import BillRecords
from atoll.records.schema import ledger_uses, tasks
from atoll.records.sql_store import SqlStore, pieces

_of_model = ledger_uses.c.kind == UseKind.MODEL.value
_SUMS = (
    func.sum(ledger_uses.c.input_tokens).label("input_tokens"),
    func.sum(ledger_uses.c.output_tokens).label("output_tokens"),
    func.sum(case((_of_model, ledger_uses.c.input_cost), else_=0)).label("input_cost"),
    func.sum(case((_of_model, ledger_uses.c.output_cost), else_=0)).label("output_cost"),
    func.sum(case((_of_model, 0), else_=ledger_uses.c.input_cost + ledger_uses.c.output_cost)).label("other_cost"),
)


class SqlBills(SqlStore, BillRecords):
    """See `BillRecords` for what each method does."""

    async def list_task_bills(
        self,
        account: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[TaskBill]:
        def read(connection: Connection) -> list[TaskBill]:
            found = _known(connection, account, since, until, limit, offset)
            if len(found) < limit:
                known = _count_known(connection, account, since, until)
                past = max(0, offset - sum(known.values()))
                found += _forgotten(connection, account, since, until, limit - len(found), past)
            return found

        return await self._database.read(read)

    async def count_tasks_ended(
        self, account: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> TasksEnded:
        gone = _of_forgotten(account, since, until).with_only_columns(ledger_uses.c.task)
        if since is not None:  # older ones change no task's last: the index leaves them out
            gone = gone.where(ledger_uses.c.at >= since)
        gone = gone.subquery()

        def read(connection: Connection) -> TasksEnded:
            known = _count_known(connection, account, since, until)
            forgotten = connection.execute(select(func.count()).select_from(gone)).scalar_one()
            return TasksEnded(
                known.get(TaskState.SUCCEEDED, 0),
                known.get(TaskState.FAILED, 0),
                known.get(TaskState.CANCELLED, 0),
                forgotten,
            )

        return await self._database.read(read)


def _ended(account: str, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    wanted = [tasks.c.owner == account, ~tasks.c.internal, ~tasks.c.live]
    return [*wanted, *_within(tasks.c.ended_at, since, until)]


def _within(column: Any, since: datetime | None, until: datetime | None) -> Iterable[ColumnElement[bool]]:
    if since is not None:
        yield column >= since
    if until is not None:
        yield column < until


def _count_known(
    connection: Connection, account: str, since: datetime | None, until: datetime | None
) -> dict[TaskState, int]:
    query = select(tasks.c.state, func.count()).where(*_ended(account, since, until)).group_by(tasks.c.state)
    return {TaskState(row[0]): row[1] for row in connection.execute(query)}


def _known(
    connection: Connection, account: str, since: datetime | None, until: datetime | None, limit: int, offset: int
) -> list[TaskBill]:
    shown = (tasks.c.id, tasks.c.credential, tasks.c.thread, tasks.c.workspace, tasks.c.spec, tasks.c.state)
    query = (
        select(*shown, tasks.c.created_at, tasks.c.started_at, tasks.c.ended_at)
        .where(*_ended(account, since, until))
        .order_by(tasks.c.ended_at.desc(), tasks.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    rows = list(connection.execute(query).mappings())
    used: dict[str, Mapping[str, Any]] = {}
    for some in pieces([row["id"] for row in rows]):
        mine = (ledger_uses.c.task.in_(some), ledger_uses.c.account == account, ~ledger_uses.c.internal)
        sums = select(ledger_uses.c.task, *_SUMS).where(*mine).group_by(ledger_uses.c.task)
        used |= {row["task"]: row for row in connection.execute(sums).mappings()}
    return [_bill(row, used.get(row["id"], {})) for row in rows]


def _bill(row: Mapping[Any, Any], used: Mapping[str, Any]) -> TaskBill:
    started: datetime | None = row["started_at"]
    ended: datetime = row["ended_at"]
    return TaskBill(
        row["id"],
        row["credential"],
        row["thread"],
        row["workspace"],
        ended,
        str(json.loads(row["spec"]).get("agent", "")),
        TaskState(row["state"]),
        0.0 if started is None else (ended - started).total_seconds(),
        **_sums(used),
    )


def _sums(row: Mapping[Any, Any]) -> dict[str, int]:
    return {one.name: int(row.get(one.name) or 0) for one in _SUMS}


def _of_forgotten(account: str, since: datetime | None, until: datetime | None) -> Any:
    """The uses of tasks that are not there any more, one row each."""
    there = select(tasks.c.id).where(tasks.c.id == ledger_uses.c.task).exists()
    uses = (ledger_uses.c.account == account, ledger_uses.c.task.is_not(None), ~ledger_uses.c.internal, ~there)
    last = func.max(ledger_uses.c.at)
    query: Any = select(
        ledger_uses.c.task,
        func.max(ledger_uses.c.credential).label("credential"),
        func.max(ledger_uses.c.thread).label("thread"),
        func.max(ledger_uses.c.workspace).label("workspace"),
        last.label("last_at"),
        *_SUMS,
    )
    return query.where(*uses).group_by(ledger_uses.c.task).having(*_within(last, since, until))


def _forgotten(
    connection: Connection, account: str, since: datetime | None, until: datetime | None, limit: int, offset: int
) -> list[TaskBill]:
    query = _of_forgotten(account, since, until)
    query = query.order_by(func.max(ledger_uses.c.at).desc(), ledger_uses.c.task.desc()).limit(limit).offset(offset)
    return [
        TaskBill(
            row["task"],
            row["credential"] or "",
            row["thread"] or "",
            row["workspace"] or "",
            row["last_at"],
            agent="",
            state=None,
            **_sums(row),
        )
        for row in connection.execute(query).mappings()
    ]
