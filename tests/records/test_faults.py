"""The store in trouble (B10, C10): locked, full, gone, slow: bounded waiting, Unavailable, nothing half-written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from atoll.domain import crash
from atoll.domain.errors import Conflict, InvalidInput, Unavailable
from atoll.domain.ids import SANDBOX_ID
from atoll.records import group_commit, postgres, sql, sqlite
from atoll.records.prepared import translated
from atoll.records.sql import SqlRecords, open_records
from atoll.testing import workspace_records_examples as examples
from atoll.testing.records_conformance import at_most, event, key, sandbox, together
from tests.records.failing import failing
from tests.records.postgres import PostgresServer, server_or_skip

TIMEOUT_S = 0.5


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlRecords]:
    records = open_records(url, timeout_s=TIMEOUT_S)
    await records.start()
    try:
        yield records
    finally:
        await records.close()


async def assert_empty(records: SqlRecords) -> None:
    assert await records.list_sandboxes(removed=None) == []
    assert await records.list_events() == []


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "atoll.db"

    @pytest.fixture
    async def records(self, path: Path) -> AsyncIterator[SqlRecords]:
        async with opened(f"sqlite:///{path}") as records:
            yield records

    @contextmanager
    def locked(self, path: Path) -> Iterator[sqlite3.Connection]:
        """Another process in the middle of a write."""
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield other
        finally:
            other.close()

    async def test_c10_a_lock_that_stays_is_unavailable_in_time_and_the_write_does_not_come_later(
        self, records: SqlRecords, path: Path
    ) -> None:
        with self.locked(path):
            began = time.monotonic()
            outcomes = await together(*[records.add_sandbox(sandbox(), event()) for _ in range(5)])
            assert time.monotonic() - began < TIMEOUT_S + 0.5
            assert all(isinstance(outcome, Unavailable) and outcome.retryable for outcome in outcomes)
            assert await records.list_sandboxes() == [], "reading goes on meanwhile"
        await asyncio.sleep(sqlite.BUSY_S + 0.2)  # for the abandoned transactions to get their lock
        await assert_empty(records)
        await records.add_sandbox(sandbox(), event())

    async def test_a_lock_that_passes_is_waited_for(self, records: SqlRecords, path: Path) -> None:
        with self.locked(path) as other:
            writing = asyncio.create_task(records.add_sandbox(sandbox(), event()))
            await asyncio.sleep(0.1)
            assert not writing.done()
            other.execute("ROLLBACK")
            await writing
        assert await records.count_live() == 1

    async def test_b10_a_busy_answer_in_the_middle_is_tried_again_from_the_start(
        self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def busy() -> Exception:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            return translated(error, "")

        with failing(monkeypatch, sql._ADD_SANDBOX, [busy(), busy()]):  # pyright: ignore[reportPrivateUsage]
            await records.add_sandbox(sandbox(), event(), bounds=at_most(1, "key_0"))
        assert await records.count_live() == 1
        assert len(await records.list_events()) == 1
        with (
            failing(monkeypatch, sql._ADD_SANDBOX, [busy() for _ in range(1000)]),  # pyright: ignore[reportPrivateUsage]
            pytest.raises(Unavailable),
        ):
            await records.add_sandbox(sandbox(), event())
        assert await records.count_live() == 1

    async def test_c03_a_full_disk_is_unavailable_and_leaves_no_part(self, records: SqlRecords) -> None:
        database: Any = records._database  # pyright: ignore[reportPrivateUsage]
        await asyncio.to_thread(sqlite.execute, database._writer, "PRAGMA max_page_count=1")
        big = sandbox()
        refused = 0
        for _ in range(50):
            try:
                await records.add_key(key("n" * 2000), event(big.id))
            except Unavailable:
                refused += 1
        assert refused
        assert len(await records.list_keys()) == len(await records.list_events()) == 50 - refused
        await asyncio.to_thread(sqlite.execute, database._writer, "PRAGMA max_page_count=1000000")
        await records.add_key(key(), event())

    async def test_a_fault_of_ours_is_not_called_unavailable(
        self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (
            failing(monkeypatch, sql._ADD_SANDBOX, [TypeError("a bug")]),  # pyright: ignore[reportPrivateUsage]
            pytest.raises(TypeError),
        ):
            await records.add_sandbox(sandbox(), event())
        await assert_empty(records)

    async def test_a_cancelled_write_leaves_all_or_nothing_and_the_store_goes_on(self, records: SqlRecords) -> None:
        async def give_up(delay_s: float) -> None:
            task = asyncio.create_task(records.add_sandbox(sandbox(), event()))
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.wait([task])

        await asyncio.gather(*[give_up(n / 5000) for n in range(40)])
        await records.add_sandbox(sandbox(), event())
        assert len(await records.list_sandboxes()) == len(await records.list_events())

    async def test_a_damaged_database_is_a_clear_error(self, path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, b"this is not a database at all" * 100)
        records = open_records(f"sqlite:///{path}")
        with pytest.raises(Unavailable, match="not a database"):
            await records.start()
        await records.close()

    async def test_a_folder_that_cannot_be_written_is_a_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        records = open_records(f"sqlite:///{tmp_path}/file/atoll.db")
        with pytest.raises(Unavailable, match=r"atoll\.db"):
            await records.start()
        await records.close()

    async def test_too_many_waiting_are_refused(self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "WAITING_MAX", 3)
        outcomes = await together(*[records.add_sandbox(sandbox(), event()) for _ in range(10)])
        assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 3
        assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 7

    async def test_a_closed_store_is_unavailable(self, records: SqlRecords) -> None:
        await records.close()
        for call in (records.ping(), records.add_sandbox(sandbox(), event())):
            with pytest.raises(Unavailable):
                await call

    async def test_the_write_ahead_log_is_moved_in_the_background(
        self, records: SqlRecords, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "CHECKPOINT_EVERY_COMMITS", 20)
        for _ in range(400):
            await records.add_sandbox(sandbox(), event())
        database: Any = records._database  # pyright: ignore[reportPrivateUsage]
        await asyncio.wait([database._checkpoint])
        assert os.stat(f"{path}-wal").st_size < 4 * 2**20, "each adds some 36 KiB"

    async def test_the_files_are_nobody_else_s(self, records: SqlRecords, path: Path) -> None:
        await records.add_sandbox(sandbox(), event())
        modes = {name.name: name.stat().st_mode & 0o777 for name in path.parent.glob("atoll.db*")}
        assert set(modes.values()) == {0o600}, modes

    async def test_keys_are_synced_to_the_disk_and_sandboxes_are_not(
        self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands: list[str] = []
        execute = sqlite.execute

        def spy(connection: Any, statement: str) -> None:
            commands.append(statement)
            execute(connection, statement)

        for module in (sqlite, group_commit):
            monkeypatch.setattr(module, "execute", spy)
        await records.add_sandbox(sandbox(), event())
        assert commands == ["BEGIN IMMEDIATE", "COMMIT"]
        commands.clear()
        await records.add_key(key(), event())
        assert commands == ["PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous=NORMAL"]

    async def test_revisions_are_synced_to_the_disk_with_the_packs_before_them(
        self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = await examples.made(records)
        own = await records.get_lineage(base.lineage)
        assert own is not None
        commands: list[str] = []
        execute = sqlite.execute

        def spy(connection: Any, statement: str) -> None:
            commands.append(statement)
            execute(connection, statement)

        for module in (sqlite, group_commit):
            monkeypatch.setattr(module, "execute", spy)
        packed = examples.pack(own)
        await records.add_pack(packed, examples.chunks(packed, b"a"))
        assert "PRAGMA synchronous=FULL" not in commands
        await examples.revised(records, base, 1)
        assert commands.count("PRAGMA synchronous=FULL") == 1
        commands.clear()
        # The pack's object is removed next: that must not outlive its record's end.
        await records.delete_packs([packed.id])
        assert commands.count("PRAGMA synchronous=FULL") == 1

    async def test_errors_do_not_repeat_what_was_to_be_stored(self, records: SqlRecords) -> None:
        canary = key()
        await records.add_key(canary, event())
        with pytest.raises(Conflict) as raised:
            await records.add_key(canary, event())
        chain: BaseException | None = raised.value
        while chain is not None:
            assert canary.hash not in repr(chain)
            chain = chain.__cause__


@pytest.mark.postgres
class TestPostgres:
    @pytest.fixture
    async def records(self, postgres_url: str) -> AsyncIterator[SqlRecords]:
        async with opened(postgres_url) as records:
            yield records

    @asynccontextmanager
    async def administrator(self, url: str) -> AsyncIterator[AsyncConnection]:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            yield connection
        await engine.dispose()

    async def test_c10_a_table_that_stays_locked_is_unavailable_in_time(
        self, records: SqlRecords, postgres_url: str
    ) -> None:
        async with self.administrator(postgres_url) as other:
            await other.execute(text("LOCK TABLE sandboxes"))
            began = time.monotonic()
            outcomes = await together(*[records.add_sandbox(sandbox(), event()) for _ in range(5)])
            assert time.monotonic() - began < TIMEOUT_S + 1
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        await asyncio.sleep(TIMEOUT_S)
        await assert_empty(records)
        await records.add_sandbox(sandbox(), event())

    async def test_lost_connections_are_replaced_without_anybody_noticing(
        self, records: SqlRecords, postgres_url: str
    ) -> None:
        await together(*[records.add_sandbox(sandbox(), event()) for _ in range(5)])
        async with self.administrator(postgres_url) as other:
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'atoll'"
            assert len((await other.execute(text(kill))).all()) >= 1
        await together(*[records.add_sandbox(sandbox(), event()) for _ in range(5)])
        assert await records.count_live() == 10

    async def test_b10_a_deadlock_or_serialization_failure_is_tried_again_from_the_start(
        self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failure(state: str) -> Exception:
            class Failure(Exception):
                sqlstate = state

            return DBAPIError("", None, Failure())

        errors = [failure("40P01"), failure("40001")]
        with failing(monkeypatch, sql._ADD_SANDBOX, errors):  # pyright: ignore[reportPrivateUsage]
            await records.add_sandbox(sandbox(), event(), bounds=at_most(1, "key_0"))
        assert await records.count_live() == 1
        assert len(await records.list_events()) == 1
        with (
            failing(monkeypatch, sql._ADD_SANDBOX, [failure("40001") for _ in range(1000)]),  # pyright: ignore[reportPrivateUsage]
            pytest.raises(Unavailable),
        ):
            await records.add_sandbox(sandbox(), event())
        assert await records.count_live() == 1

    async def test_a_commit_whose_fate_is_unknown_is_not_repeated(
        self, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The connection goes between the last statement and the commit.
        database: Any = records._database  # pyright: ignore[reportPrivateUsage]
        runs = 0

        def cut(connection: Any) -> None:
            nonlocal runs
            runs += 1
            connection.execute(text("SELECT 1"))
            connection.connection.driver_connection.terminate()

        with pytest.raises(Unavailable, match="look before you try again"):
            await database.write(cut)
        assert runs == 1
        await records.ping()

    async def test_a_fault_of_ours_is_not_called_unavailable(self, records: SqlRecords) -> None:
        database: Any = records._database  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(DBAPIError):
            await database.write(lambda connection: connection.execute(text("SELECT nonsense")))

    async def test_a_full_pool_is_unavailable_in_time(self, postgres_url: str) -> None:
        records = open_records(postgres_url, connections=1, timeout_s=TIMEOUT_S)
        await records.start()
        database: Any = records._database  # pyright: ignore[reportPrivateUsage]
        async with database._engine.connect():
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await records.count_live()
            assert time.monotonic() - began < TIMEOUT_S + 0.5
        with pytest.raises(Unavailable):
            await database.write(lambda connection: connection.execute(text("SELECT pg_sleep(30)")))
        assert await records.count_live() == 0
        await records.close()

    async def test_a_wrong_password_or_database_is_unavailable_at_once(self, postgres_url: str) -> None:
        records = open_records(postgres_url.replace("/atoll_test_", "/none_"), timeout_s=20)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await records.start()
        assert time.monotonic() - began < 5
        await records.close()


@pytest.mark.postgres
class TestPostgresServer:
    @pytest.fixture
    def server(self) -> Iterator[PostgresServer]:
        server = server_or_skip()
        try:
            yield server
        finally:
            server.remove()

    async def test_c10_while_the_server_is_down_calls_are_unavailable_and_afterwards_they_work(
        self, server: PostgresServer
    ) -> None:
        async with opened(server.url) as records:
            kept = sandbox()
            await records.add_sandbox(kept, event())
            await asyncio.to_thread(server.stop, "immediate")
            for call in (
                lambda: records.add_sandbox(sandbox(), event()),
                lambda: records.swap_sandbox(kept, None),
                lambda: records.get_sandbox(kept.id),
                records.ping,
            ):
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await call()
                assert time.monotonic() - began < 2 * TIMEOUT_S + 1
            await asyncio.to_thread(server.start)
            assert await records.get_sandbox(kept.id) == kept
            await records.add_sandbox(sandbox(), event())

    async def test_a_restart_in_between_is_not_noticed(self, server: PostgresServer) -> None:
        records = open_records(server.url, timeout_s=10)
        await records.start()
        await records.add_sandbox(sandbox(), event())
        await asyncio.to_thread(server.stop)
        adding = asyncio.create_task(records.add_sandbox(sandbox(), event()))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.start)
        await adding
        assert await records.count_live() == 2
        await records.close()


async def test_an_unknown_kind_of_database_is_refused() -> None:
    for url in ("mysql://x/y", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(InvalidInput, match="database URL"):
            open_records(url)


async def test_c01_a_mutation_and_its_event_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(_: str) -> None:
        raise Killed

    async with opened(f"sqlite:///{tmp_path}/a.db") as records:
        with crash.armed("records.write.before_commit", kill), pytest.raises(Killed):
            await records.add_sandbox(sandbox(), event())
        await assert_empty(records)
        with crash.armed("records.write.after_commit", kill), pytest.raises(Killed):
            await records.add_sandbox(sandbox(), event())
        assert len(await records.list_sandboxes()) == len(await records.list_events()) == 1


def test_postgres_is_told_its_time_limits() -> None:
    engine = postgres.engine("postgresql://u@h/d", connections=3, statement_s=5)
    assert engine.url.drivername == "postgresql+asyncpg"


WRITER = """
import asyncio, sys
from atoll.records.sql import open_records
from atoll.testing.records_conformance import at_most, event, sandbox
async def main():
    records = open_records(sys.argv[1])
    await records.start()
    async def write():
        while True:
            made = sandbox()
            await records.add_sandbox(made, event(made.id))
            print(made.id, flush=True)
    await asyncio.gather(*[write() for _ in range(4)])
asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 40])
async def test_c01_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    url = f"sqlite:///{tmp_path}/atoll.db"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, url, stdout=asyncio.subprocess.PIPE)
    assert writer.stdout is not None
    try:
        async with asyncio.timeout(20):
            told = [(await writer.stdout.readline()).decode().strip() for _ in range(acknowledged)]
    finally:
        writer.kill()
        await writer.wait()
    told += (await writer.stdout.read()).decode().split()
    async with opened(url) as records:
        stored = {made.id for made in await records.list_sandboxes(limit=100_000)}
        assert set(filter(SANDBOX_ID.match, told)) <= stored
        assert len(stored) >= acknowledged
        assert stored == {happened.target for happened in await records.list_events(limit=100_000)}
