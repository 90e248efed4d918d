"""Every store that looks back at tasks passes the suite that Atoll ships."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.records.base import Records
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.task_histories_conformance import TaskHistoriesConformance
from tests.records.migrated import migrated_sqlite
from tests.records.test_conformance import opened_twice


class TestSqlite(TaskHistoriesConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Records]:
        async for store, _ in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield store


@pytest.mark.postgres
class TestPostgres(TaskHistoriesConformance):
    @pytest.fixture
    async def store(self, migrated_postgres_url: str) -> AsyncIterator[Records]:
        async for store, _ in opened_twice(migrated_postgres_url):
            yield store


class TestMemory(TaskHistoriesConformance):
    @pytest.fixture
    async def store(self) -> Records:
        return MemoryRecords()
