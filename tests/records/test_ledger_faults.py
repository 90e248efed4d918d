"""B10 for money: a database that is locked, or that ends transactions for a deadlock, in the midst of a posting."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from atoll.domain.errors import Unavailable
from atoll.domain.ledger import Budget
from atoll.records import sql_holds, sql_postings
from atoll.records import sqlite as sqlite_database
from atoll.records.ledger_proof import prove
from atoll.records.prepared import Prepared, translated
from atoll.records.sql import SqlRecords, open_records
from atoll.testing.ledger_conformance import T0, credit, event, use, wanted
from tests.records.failing import failing
from tests.records.migrated import migrated_sqlite

# Every statement that writes in a posting, and the first of those behind it.
STATEMENTS = {
    "account": sql_postings._SET_ACCOUNT,
    "budget": sql_postings._ADD_TO_BUDGET,
    "hold": sql_holds._RESOLVE,
    "use": sql_holds._ADD_USE,
    "day": sql_postings._ADD_TO_DAY,
    "transfer": sql_postings._ADD_TRANSFER,
    "other side": sql_postings._ADD_TO_SYSTEM,
}
BUDGETS = (Budget("task_1", 1_000),)


def locked() -> Exception:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return translated(error, "")


def state(code: str) -> Exception:
    class Failure(Exception):
        sqlstate = code

    return DBAPIError("", None, Failure())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return asyncio.run(migrated_sqlite(tmp_path / "atoll.db"))
    return request.getfixturevalue("migrated_postgres_url")


@pytest.fixture
async def records(url: str) -> AsyncIterator[SqlRecords]:
    records = open_records(url, timeout_s=0.5)
    await records.start()
    await records.transfer(credit(100), event())
    yield records
    await records.close()


def passing(url: str) -> list[Exception]:
    return [locked(), locked()] if url.startswith("sqlite") else [state("40P01"), state("40001")]


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
async def test_b10_a_posting_that_fails_in_the_middle_is_tried_again_and_posts_once(
    url: str, records: SqlRecords, monkeypatch: pytest.MonkeyPatch, statement: Prepared
) -> None:
    hold = await records.hold(wanted(40, budgets=BUDGETS), T0)
    errors = passing(url)
    with failing(monkeypatch, statement, errors):
        settled = await records.post_hold(hold.id, use(30), T0)
    assert errors == [], "the statement is in a posting"
    assert (settled.charged, settled.account.balance, settled.account.held) == (30, 70, 0)
    assert (await prove(url)).problems == ()
    assert len(await records.all_transfers()) == 2


async def test_b10_what_fails_for_good_is_unavailable_and_nothing_is_posted_in_part(
    url: str, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = await records.hold(wanted(40, budgets=BUDGETS), T0)
    for statement in STATEMENTS.values():
        with failing(monkeypatch, statement, passing(url) * 500), pytest.raises(Unavailable):
            await records.post_hold(hold.id, use(30), T0)
        assert (await records.billing_account("acc", T0)).held == 40
    assert (await prove(url)).problems == ()
    assert len(await records.all_transfers()) == 1
    assert (await records.post_hold(hold.id, use(30), T0)).charged == 30


async def test_b10_two_payers_with_the_same_budgets_do_not_wait_in_a_circle(url: str, records: SqlRecords) -> None:
    other = open_records(url)
    await other.start()
    await other.transfer(credit(100, account="two"), event())
    budgets = [Budget(f"key_{n}", 1_000) for n in range(4)]

    async def spend(store: SqlRecords, account: str, bounds: list[Budget]) -> None:
        for _ in range(10):
            hold = await store.hold(wanted(1, account=account, budgets=tuple(bounds)), T0)
            await store.post_hold(hold.id, use(1, account=account), T0)

    try:
        await asyncio.gather(
            *[spend(records, "acc", budgets) for _ in range(3)], *[spend(other, "two", budgets[::-1]) for _ in range(3)]
        )
        assert {one.spent for one in (await other.budget_uses([b.subject for b in budgets])).values()} == {60}
    finally:
        await other.close()
    assert (await prove(url)).problems == ()


async def test_what_moves_money_is_synced_to_the_disk_and_a_hold_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = open_records(await migrated_sqlite(tmp_path / "atoll.db"))
    await records.start()
    commands: list[str] = []
    execute = sqlite_database.execute

    def spy(connection: Any, statement: str) -> None:
        commands.append(statement)
        execute(connection, statement)

    monkeypatch.setattr(sqlite_database, "execute", spy)
    synced = ["PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL"]
    await records.transfer(credit(100), event())
    assert commands == synced
    hold = await records.hold(wanted(40), T0)
    assert commands == synced
    await records.post_hold(hold.id, use(30), T0)
    assert commands == synced * 2
    await records.add_use(use(30), T0)
    assert commands == synced * 3
    await records.close()
