"""Accounts and shared counters hold in every store: SQLite, PostgreSQL, and the one in memory that other tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.records.base import Records
from atoll.testing.account_records_conformance import AccountRecordsConformance
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.rate_records_conformance import RateRecordsConformance
from tests.records.migrated import migrated_sqlite
from tests.records.test_conformance import opened_twice

Stores = tuple[Records, Records]


class TestSqlite(AccountRecordsConformance, RateRecordsConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(AccountRecordsConformance, RateRecordsConformance):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(AccountRecordsConformance, RateRecordsConformance):
    @pytest.fixture
    async def stores(self) -> Stores:
        store = MemoryRecords()
        return store, store
