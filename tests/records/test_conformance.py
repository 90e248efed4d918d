"""Every store passes the suite that Atoll ships: SQLite, PostgreSQL, and the one in memory that other tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.testing.groups_conformance import GroupRecordsConformance
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.records_conformance import RecordsConformance
from atoll.testing.users_conformance import UserRecordsConformance
from atoll.testing.workspace_records_conformance import WorkspaceRecordsConformance

Stores = tuple[Records, Records]


async def opened_twice(url: str) -> AsyncIterator[Stores]:
    stores = open_records(url), open_records(url)
    for store in stores:
        await store.start()
    yield stores
    for store in stores:
        await store.close()


class TestSqlite(RecordsConformance, GroupRecordsConformance, UserRecordsConformance, WorkspaceRecordsConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(f"sqlite:///{tmp_path}/atoll.db"):
            yield stores


@pytest.mark.postgres
class TestPostgres(RecordsConformance, GroupRecordsConformance, UserRecordsConformance, WorkspaceRecordsConformance):
    @pytest.fixture
    async def stores(self, postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(postgres_url):
            yield stores


class TestMemory(RecordsConformance, GroupRecordsConformance, UserRecordsConformance, WorkspaceRecordsConformance):
    @pytest.fixture
    async def stores(self) -> Stores:
        store = MemoryRecords()
        return store, store
