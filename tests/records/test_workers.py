"""The marketplace's workers: every store passes the suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.records.base import Records
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.workers_conformance import WorkersConformance
from tests.records.migrated import migrated_sqlite
from tests.records.test_conformance import Stores, opened_twice


class TestSqlite(WorkersConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(WorkersConformance):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(WorkersConformance):
    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        store = MemoryRecords()
        return store, store
