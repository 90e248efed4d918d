"""Group commit: durable transactions that wait at the same moment share one sync of SQLite's log.

`sqlite.py` runs a group in its writer's thread. Each has a savepoint of its own: one that fails takes back what it
wrote, and the others go on. None is done before all of them are on the disk.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Connection

from atoll.domain.errors import Unavailable
from atoll.records.prepared import translated

T = TypeVar("T")

GROUP_MAX = 128  # in one transaction: other processes wait for its end, and the first for the last
GROUP_S = 0.05  # likewise: what is in line after that long waits for the next


class Waiting(Generic[T]):
    """One transaction in line, and how it ended."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.abandoned = threading.Event()  # its caller has gone: nothing of it may be committed
        self.done = False
        self._error: BaseException | None = None
        self._result: list[T] = []

    def end(self, error: BaseException | None) -> None:
        self.done, self._error = True, error

    def ran(self, result: T) -> None:
        """It did what it had to; it is done when all that was written with it is committed."""
        self._result = [result]

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]


class _AllGone(Exception):
    """SQLite has rolled back the whole transaction by itself, as it does when the disk is full."""


def run_group(connection: Connection, line: deque[Waiting[Any]]) -> None:
    """Run those at the head of the line; each ends with its result or its own error."""
    group: list[Waiting[Any]] = []
    while line and len(group) < GROUP_MAX:
        one = line.popleft()
        if one.abandoned.is_set():
            one.end(Unavailable())
        else:
            group.append(one)
    _run_together(connection, group)
    line.extendleft(reversed(group))


def _run_together(connection: Connection, group: list[Waiting[Any]]) -> None:
    """Takes those out of the group that it ran."""
    if len(group) < 2:
        while group:
            _run_alone(connection, group.pop())
        return
    ran: list[Waiting[Any]] = []
    written: list[Waiting[Any]] = []
    failed: list[tuple[Waiting[Any], BaseException]] = []

    def work(connection: Connection) -> None:
        until = time.monotonic() + GROUP_S
        while group and (not ran or time.monotonic() < until):
            one = group.pop(0)
            ran.append(one)
            error = _run_within(connection, one)
            if error is None:
                written.append(one)
            else:
                failed.append((one, error))

    error: BaseException | None = None
    try:
        transaction(connection, work)
    except _AllGone:
        for one in ran:
            _run_alone(connection, one)
        return
    except BaseException as fault:  # no lock, or no commit: nothing of any of them is there
        error = fault
        if not ran:
            ran, group[:] = group[:], []
    for one in ran if error is not None else written:
        one.end(error)
    for one, fault in failed:
        one.end(fault)


def _run_within(connection: Connection, one: Waiting[Any]) -> BaseException | None:
    """Run it in a savepoint; the error with which it was taken back."""
    execute(connection, "SAVEPOINT one")
    try:
        result = one.work(connection)
        if one.abandoned.is_set():
            raise Unavailable
    except BaseException as error:
        if not driver_of(connection).in_transaction:
            raise _AllGone from error
        execute(connection, "ROLLBACK TO one")
        execute(connection, "RELEASE one")
        return error
    execute(connection, "RELEASE one")
    one.ran(result)
    return None


def _run_alone(connection: Connection, one: Waiting[Any]) -> None:
    try:
        one.ran(transaction(connection, one.work, one.abandoned))
    except BaseException as error:
        one.end(error)
    else:
        one.end(None)


def transaction(connection: Connection, work: Callable[[Connection], T], abandoned: threading.Event | None = None) -> T:
    """Run `work` in one write transaction, unless its caller has `abandoned` it before the commit."""
    # Beside SQLAlchemy's own begin and commit, which cost more than SQLite's.
    execute(connection, "BEGIN IMMEDIATE")
    try:
        result = work(connection)
        if abandoned is not None and abandoned.is_set():
            raise Unavailable
        execute(connection, "COMMIT")
    except BaseException:
        driver_of(connection).rollback()
        raise
    finally:
        connection.rollback()  # for SQLAlchemy's books: the driver has no transaction open any more
    return result


def execute(connection: Connection, statement: str) -> None:
    """Give the driver a command as it is."""
    try:
        driver_of(connection).execute(statement).close()
    except sqlite3.Error as error:
        raise translated(error, statement) from error


def driver_of(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)
