"""Every store keeps secrets, and moves what a vault has wrapped, as the suites that Atoll ships say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.secrets_conformance import SecretRecordsConformance
from atoll.testing.wrapped_keys_conformance import WrappedKeyRecordsConformance
from tests.records.migrated import migrated_sqlite

Stores = tuple[Records, Records]


class _Both(SecretRecordsConformance, WrappedKeyRecordsConformance):
    @pytest.fixture
    def records(self, stores: Stores) -> Records:
        return stores[0]


async def opened_twice(url: str) -> AsyncIterator[Stores]:
    stores = open_records(url), open_records(url)
    for store in stores:
        await store.start()
    yield stores
    for store in stores:
        await store.close()


class TestSqlite(_Both):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(_Both):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(_Both):
    @pytest.fixture
    async def stores(self) -> Stores:
        store = MemoryRecords()
        return store, store
