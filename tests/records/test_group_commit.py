"""Group commit on SQLite: durable transactions that wait together share one sync, and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from atoll.domain.errors import Conflict, Unavailable
from atoll.records import group_commit
from atoll.records.prepared import translated
from atoll.records.sqlite import Sqlite
from tests.records.migrated import migrated_sqlite

ADD = text("INSERT INTO rates (name, spent, since) VALUES (:name, 0, 0)")
NAMES = text("SELECT name FROM rates ORDER BY name")


class Held:
    """A database whose writer's thread waits, so that what comes meanwhile comes together."""

    def __init__(self, database: Sqlite) -> None:
        self.database = database
        self.commands: list[str] = []
        self._go = threading.Event()

    async def together(self, *works: Any) -> list[Any]:
        """What became of durable transactions that wait in line at the same moment."""
        self._go.clear()
        loop = asyncio.get_running_loop()
        blocking = loop.run_in_executor(self.database._write_thread, self._go.wait)
        waiting = [asyncio.create_task(self.database.write(work, durable=True)) for work in works]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.commands.clear()
        self._go.set()
        await blocking
        return await asyncio.gather(*waiting, return_exceptions=True)

    async def names(self) -> list[str]:
        return await self.database.read(lambda connection: list(connection.execute(NAMES).scalars()))


@pytest.fixture
async def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    database = Sqlite(Path((await migrated_sqlite(tmp_path / "atoll.db")).removeprefix("sqlite:///")), timeout_s=1.0)
    await database.start()
    held, execute = Held(database), group_commit.execute

    def spy(connection: Any, statement: str) -> None:
        held.commands.append(statement)
        execute(connection, statement)

    monkeypatch.setattr(group_commit, "execute", spy)
    yield held
    await database.close()


def adds(name: str, error: BaseException | None = None) -> Any:
    def work(connection: Connection) -> str:
        connection.execute(ADD, {"name": name})
        if error is not None:
            raise error
        return name

    return work


async def test_those_that_wait_together_are_committed_together(held: Held) -> None:
    names = [f"n{number:03}" for number in range(group_commit.GROUP_MAX + 20)]
    assert await held.together(*map(adds, names)) == names
    assert await held.names() == names
    assert held.commands.count("COMMIT") == 2


async def test_an_error_in_one_leaves_the_others(held: Held) -> None:
    outcomes = await held.together(adds("a"), adds("b", Conflict("no")), adds("c"), adds("a"), adds("d", KeyError("x")))
    assert [type(one).__name__ for one in outcomes] == ["str", "Conflict", "str", "IntegrityError", "KeyError"]
    assert await held.names() == ["a", "c"]
    assert held.commands.count("COMMIT") == 1


async def test_no_group_is_under_way_for_long_and_the_line_keeps_its_order(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "GROUP_S", -1)
    order: list[str] = []

    def work(name: str) -> Any:
        return lambda connection: order.append(adds(name)(connection))

    names = [f"n{number}" for number in range(5)]
    assert await held.together(*map(work, names)) == [None] * 5
    assert order == await held.names() == names
    assert held.commands.count("COMMIT") == 5


async def test_one_alone_needs_no_savepoint(held: Held) -> None:
    assert await held.together(adds("a")) == ["a"]
    assert held.commands == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_what_sqlite_takes_back_as_a_whole_is_done_again_one_by_one(held: Held) -> None:
    """As on a full disk: the first error ends the transaction of all."""
    failing = [1]

    def full(connection: Connection) -> None:
        connection.execute(ADD, {"name": "full"})
        if failing:
            group_commit.driver_of(connection).rollback()
        raise Conflict("full")

    outcomes = await held.together(adds("a"), full, adds("b"))
    assert [type(one).__name__ for one in outcomes] == ["str", "Conflict", "str"]
    assert await held.names() == ["a", "b"]


async def test_b10_busy_in_the_middle_is_tried_again_alone(held: Held) -> None:
    busy = [1, 1]

    def work(connection: Connection) -> str:
        connection.execute(ADD, {"name": "late"})
        if busy:
            busy.pop()
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise translated(error, "")
        return "late"

    assert await held.together(adds("a"), work, adds("b")) == ["a", "late", "b"]
    assert await held.names() == ["a", "b", "late"]


async def test_a_commit_that_fails_fails_all_of_them_and_leaves_nothing(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = group_commit.execute

    def fail(connection: Any, statement: str) -> None:
        if statement == "COMMIT":
            raise translated(sqlite3.OperationalError("disk I/O error"), statement)
        execute(connection, statement)

    with monkeypatch.context() as patched:
        patched.setattr(group_commit, "execute", fail)
        outcomes = await held.together(adds("a"), adds("b", Conflict("own")), adds("c"))
    assert [type(one) for one in outcomes] == [Unavailable, Conflict, Unavailable]
    assert await held.names() == []
    assert await held.together(adds("d")) == ["d"]


async def test_b10_a_lock_that_another_process_keeps_is_waited_for_and_then_unavailable(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(held.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await held.together(*map(adds, "abc"))
        assert [type(one) for one in outcomes] == [Unavailable] * 3
        waiting = asyncio.create_task(held.together(*map(adds, "def")))
        await asyncio.sleep(0.1)
        other.execute("ROLLBACK")
        assert await waiting == ["d", "e", "f"]
    assert await held.names() == ["d", "e", "f"]


async def test_what_was_given_up_meanwhile_is_not_committed(held: Held) -> None:
    def gives_up(connection: Connection) -> str:
        connection.execute(ADD, {"name": "b"})
        held.database._durable[0].abandoned.set()
        return "b"

    line = held.database._durable
    outcomes = await held.together(gives_up, *map(adds, [f"n{n:03}" for n in range(group_commit.GROUP_MAX)]))
    assert outcomes[0] == "b"
    assert isinstance(outcomes[-1], Unavailable)
    assert not line
    assert len(await held.names()) == group_commit.GROUP_MAX


async def test_a_closed_database_keeps_nobody_waiting(held: Held) -> None:
    writing = [asyncio.create_task(held.database.write(adds(f"n{n}"), durable=True)) for n in range(20)]
    await asyncio.sleep(0)
    await held.database.close()
    done, waiting = await asyncio.wait(writing, timeout=10)
    assert not waiting
    for one in done:
        one.exception() if not one.cancelled() else None
