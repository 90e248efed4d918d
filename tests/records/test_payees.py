"""Charges that somebody else gets: every store passes the suite, and the proof names a sale that was not paid out."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from atoll.domain.ledger import Payee
from atoll.records.base import Records
from atoll.records.ledger_proof import prove
from atoll.records.sql import open_records
from atoll.testing.ledger_conformance import T0, Stores, credit, event, use, wanted
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.payees_conformance import PayeesConformance
from tests.records.migrated import migrated_sqlite
from tests.records.test_conformance import opened_twice


class TestSqlite(PayeesConformance):
    @pytest.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        async for stores in opened_twice(await migrated_sqlite(tmp_path / "atoll.db")):
            yield stores


@pytest.mark.postgres
class TestPostgres(PayeesConformance):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Stores]:
        async for stores in opened_twice(migrated_postgres_url):
            yield stores


class TestMemory(PayeesConformance):
    @pytest.fixture
    async def stores(self) -> tuple[Records, Records]:
        store = MemoryRecords()
        return store, store


LAST = "DELETE FROM ledger_transfers WHERE id = (SELECT max(id) FROM ledger_transfers)"
CHANGES = {
    LAST: "was not posted",
    "UPDATE ledger_transfers SET key = 'sale:other' WHERE kind = 'worker_earning'": "of a sale that gives it 0 USD",
    "UPDATE ledger_transfers SET amount = 29 WHERE kind = 'worker_earning'": "of a sale that gives it 0.00003 USD",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_the_proof_holds_and_names_a_sale_that_was_not_paid_out(tmp_path: Path, change: str) -> None:
    url = await migrated_sqlite(tmp_path / "atoll.db")
    records = open_records(url)
    await records.start()
    try:
        await records.transfer(credit(100), event())
        hold = await records.hold(wanted(30), T0)
        await records.post_hold(hold.id, use(30), T0, payee=Payee("author"))
    finally:
        await records.close()
    assert (await prove(url)).problems == ()
    with closing(sqlite3.connect(tmp_path / "atoll.db", isolation_level=None)) as database:
        database.execute(change)
    problems = (await prove(url)).problems
    assert [one for one in problems if CHANGES[change] in one], problems
