"""Every store keeps previews, as the suite that Atoll ships says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.testing.memory_records import MemoryRecords
from atoll.testing.previews_conformance import PreviewRecordsConformance
from tests.records.migrated import migrated_sqlite
from tests.records.test_secrets import Stores, opened_twice


class TestSqlite(PreviewRecordsConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(PreviewRecordsConformance):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(PreviewRecordsConformance):
    @pytest.fixture
    async def stores(self) -> Stores:
        store = MemoryRecords()
        return store, store
