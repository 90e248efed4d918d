"""The chains of events: every store passes the suite; what is stored is never changed, and nothing else writes it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

import atoll
from atoll.records.base import Records
from atoll.records.sql import SqlRecords, open_records
from atoll.testing.audit_records_conformance import AuditRecordsConformance
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.records_conformance import event
from atoll.testing.webhook_records_conformance import WebhookRecordsConformance
from tests.records.migrated import migrated_sqlite
from tests.records.test_conformance import Stores, opened_twice

SOURCES = Path(atoll.__file__).parent


class TestSqlite(AuditRecordsConformance, WebhookRecordsConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(AuditRecordsConformance, WebhookRecordsConformance):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(AuditRecordsConformance, WebhookRecordsConformance):
    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        store = MemoryRecords()
        return store, store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlRecords]:
    store = open_records(url)
    await store.start()
    yield store
    await store.close()


@pytest.mark.parametrize("statement", ["UPDATE events SET actor = 'me'", "DELETE FROM events WHERE seq = 1"])
async def test_a17_the_program_cannot_change_an_event_nor_take_one_away(store: SqlRecords, statement: str) -> None:
    await store.add_events([event(), event()])

    def tamper(connection: Connection) -> None:
        with pytest.raises(DBAPIError, match="events are append-only"):
            connection.execute(text(statement))
        raise KeyError  # the transaction is spoilt

    with pytest.raises(KeyError):
        await store._database.write(tamper)
    assert len(await store.list_events()) == 2


@pytest.mark.postgres
async def test_a17_postgres_refuses_everybody_who_is_not_its_administrator(postgres_url: str) -> None:
    store = open_records(postgres_url)
    await store.start()
    await store.add_events([event()])

    def tamper(connection: Connection) -> None:
        with pytest.raises(DBAPIError, match="events are append-only"):
            connection.execute(text("TRUNCATE events"))
        raise KeyError

    with pytest.raises(KeyError):
        await store._database.write(tamper)
    await store.close()


def test_a17_nothing_but_the_chain_inserts_into_events() -> None:
    forms = (r"(insert|update|delete)\(\s*(schema\.)?events\s*\)", r"INTO events\b", r"UPDATE events\b")
    writes = re.compile("|".join(forms))
    found = {
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if writes.search(path.read_text()) and "migrations" not in path.parts
    }
    assert found == {"records/sql_chain.py"}
