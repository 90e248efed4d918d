"""Every store passes the suite that Atoll ships: SQLite, PostgreSQL, and the one in memory that other tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.records.sqlite import Sqlite
from atoll.testing.groups_conformance import GroupRecordsConformance
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.records_conformance import RecordsConformance
from atoll.testing.users_conformance import UserRecordsConformance
from atoll.testing.workspace_records_conformance import WorkspaceRecordsConformance
from tests.records.migrated import migrated_sqlite

Stores = tuple[Records, Records]


async def opened_twice(url: str) -> AsyncIterator[Stores]:
    stores = open_records(url), open_records(url)
    late: list[str] = []
    for store in stores:
        await store.start()
        if isinstance(store._database, Sqlite):
            watch_events(store._database, late)
    yield stores
    for store in stores:
        await store.close()
    assert late == []


def watch_events(database: Sqlite, late: list[str]) -> None:
    """Note what is written behind an event in its transaction. On PostgreSQL the head of its chain is locked by then,
    and has to be the last lock that anybody waits for: SQLite has none, and the statements are the same."""
    has_event = False

    def statement(sql: str) -> None:
        nonlocal has_event
        word, _, rest = sql.partition(" ")
        if word in ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"):
            has_event = False
        elif word == "INSERT" and rest.startswith("INTO events "):
            has_event = True
        elif has_event and word in ("INSERT", "UPDATE", "DELETE") and not rest.startswith("INTO event_heads "):
            late.append(sql)

    assert database._writer is not None
    driver: Any = database._writer.connection.driver_connection
    driver.set_trace_callback(statement)


class TestSqlite(RecordsConformance, GroupRecordsConformance, UserRecordsConformance, WorkspaceRecordsConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(RecordsConformance, GroupRecordsConformance, UserRecordsConformance, WorkspaceRecordsConformance):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(RecordsConformance, GroupRecordsConformance, UserRecordsConformance, WorkspaceRecordsConformance):
    @pytest.fixture
    async def stores(self) -> Stores:
        store = MemoryRecords()
        return store, store
