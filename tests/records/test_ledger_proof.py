"""The proof of the ledger: an honest one holds, and whatever is changed by hand is named; the views say the same."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from atoll.domain.errors import NotFound
from atoll.domain.ledger import Budget, TransferKind
from atoll.domain.price import Cost, TokenUse
from atoll.records.copy import copy_database
from atoll.records.dump import dump_records
from atoll.records.ledger_proof import prove
from atoll.records.sql import SqlRecords, open_records
from atoll.testing.ledger_conformance import LATER, T0, credit, event, use, wanted
from tests.records.migrated import migrated_sqlite

BUDGETS = (Budget("task_1", 1000), Budget("key_000000000001", 1000))
CHANGES = {
    "UPDATE ledger_accounts SET balance = balance + 1 WHERE id = 'acc'": "account acc: balance is 0.000061 USD, "
    "and should be 0.00006 USD",
    "UPDATE ledger_accounts SET held = 0 WHERE id = 'acc'": "account acc: held is 0 USD, and should be 0.00001 USD",
    "UPDATE ledger_accounts SET spent = 5 WHERE id = 'acc'": "account acc: spent is 0.000005 USD, and should be",
    "UPDATE ledger_accounts SET balance = -1000 WHERE id = 'issued'": "account issued: balance",
    "DELETE FROM ledger_accounts WHERE id = 'earned'": "account earned: its balance is not stored: 0.00003 USD",
    "UPDATE ledger_transfers SET amount = 31 WHERE id = 2": "transfer 2: the balance of acc after it is 0.000069 USD, "
    "not 0.00007 USD",
    "UPDATE ledger_transfers SET credit = 'acc', debit = 'earned' WHERE id = 2": "transfer 2: a usage_deduction does "
    "not go from earned to acc",
    "UPDATE ledger_transfers SET kind = 'gift' WHERE id = 2": "transfer 2 is damaged: 'gift'",
    "DELETE FROM ledger_transfers WHERE id = 2": "transfer 3: 2 before it is missing",
    "DELETE FROM ledger_transfers WHERE id = 3": "account issued: balance is -0.00009 USD, and should be -0.0001 USD",
    "UPDATE ledger_days SET spent = 31": "account acc: spent on 2026-03-15 is 0.000031 USD, and should be",
    "DELETE FROM ledger_days": "account acc: what it spent on 2026-03-15 is not stored: 0.00003 USD",
    "UPDATE ledger_budgets SET spent = 0 WHERE subject = 'task_1'": "budget task_1: spent is 0 USD, and should be",
    "UPDATE ledger_budgets SET held = 0 WHERE subject = 'task_1'": "budget task_1: held is 0 USD, and should be",
    "UPDATE ledger_holds SET posted = 7 WHERE state = 'posted'": "(posted): charged 7 micro-dollars, and its transfer "
    "says 30",
    "UPDATE ledger_holds SET state = 'voided' WHERE state = 'posted'": "(voided): charged 30 micro-dollars",
    "UPDATE ledger_uses SET charged = 29": "account acc: spent 30 micro-dollars, and its uses say 29",
}


async def used(url: str) -> SqlRecords:
    """A store in which some money has moved: 100 given, 30 used, 10 taken back, 10 held."""
    records = open_records(url)
    await records.start()
    await records.transfer(credit(100), event())
    hold = await records.hold(wanted(40, budgets=BUDGETS), T0)
    spent = use(Cost(20, 10), task="task_1", thread="thr_1", workspace="ws_1", model="m", tokens=TokenUse(4, 2))
    await records.post_hold(hold.id, spent, T0)
    await records.transfer(credit(10, kind=TransferKind.ADJUSTMENT), event())
    await records.void_hold((await records.hold(wanted(5, budgets=BUDGETS), T0)).id, T0)
    await records.hold(wanted(10, budgets=BUDGETS), T0)
    gone = await records.hold(wanted(1, expires_at=T0), T0)
    assert [one.id for one in await records.expire_holds(T0)] == [gone.id]
    await records.add_use(use(5, internal=True, account="key_0", task="task_0"), T0)
    return records


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Path]:
    await (await used(await migrated_sqlite(tmp_path / "atoll.db"))).close()
    yield tmp_path / "atoll.db"


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        assert database.execute(statement).rowcount


async def test_an_honest_ledger_is_proved(file: Path) -> None:
    proof = await prove(f"sqlite:///{file}")
    assert (proof.wrong, proof.problems, proof.total) == (0, (), 0)
    assert (proof.transfers, proof.accounts, proof.pending_holds) == (3, 3, 1)


async def test_what_was_charged_without_a_hold_is_under_its_budgets(file: Path) -> None:
    records = open_records(f"sqlite:///{file}")
    await records.start()
    await records.add_use(use(20), T0, budgets=BUDGETS)
    await records.close()
    assert (await prove(f"sqlite:///{file}")).problems == ()
    change(file, "UPDATE ledger_budgets SET spent = 30 WHERE subject = 'task_1'")
    [problem] = (await prove(f"sqlite:///{file}")).problems
    assert problem == "budget task_1: spent is 0.00003 USD, and should be 0.00005 USD"


async def test_an_empty_one_too_and_none_is_not_found(tmp_path: Path) -> None:
    assert (await prove(await migrated_sqlite(tmp_path / "new.db"))).wrong == 0
    with pytest.raises(NotFound):
        await prove(f"sqlite:///{tmp_path}/none.db")


@pytest.mark.parametrize(("statement", "problem"), CHANGES.items(), ids=range(len(CHANGES)))
async def test_what_is_changed_by_hand_is_named(file: Path, statement: str, problem: str) -> None:
    change(file, statement)
    proof = await prove(f"sqlite:///{file}")
    assert proof.wrong >= 1
    assert any(problem in one for one in proof.problems), proof.problems


async def test_money_that_is_made_shows_in_the_sum(file: Path) -> None:
    change(file, "UPDATE ledger_accounts SET balance = balance + 1 WHERE id = 'acc'")
    assert "all balances together are 1 micro-dollars, not 0" in (await prove(f"sqlite:///{file}")).problems


async def test_the_program_itself_changes_no_transfer_and_no_use(file: Path) -> None:
    records = open_records(f"sqlite:///{file}")
    await records.start()
    for statement in (
        "UPDATE ledger_transfers SET amount = 1",
        "DELETE FROM ledger_transfers",
        "UPDATE ledger_uses SET charged = 0",
        "DELETE FROM ledger_uses",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            await records._database.write(lambda connection, statement=statement: connection.execute(text(statement)))
    await records.close()


def rows(file: Path, query: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(file)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query)]


async def test_testbases_names_show_the_same_in_dollars(file: Path) -> None:
    [account] = rows(file, "SELECT * FROM billing_accounts")
    assert (account["api_key_id"], account["credits_balance"], account["total_spent"]) == ("acc", 0.00006, 0.00003)
    moved = rows(file, "SELECT type, amount, balance_after FROM transactions ORDER BY id")
    assert [tuple(one.values()) for one in moved] == [
        ("credit_purchase", 0.0001, 0.0001),
        ("usage_deduction", -0.00003, 0.00007),
        ("credit_adjustment", -0.00001, 0.00006),
    ]
    [record] = rows(file, "SELECT * FROM usage_records")
    assert (record["id"], record["session_id"], record["total_tokens"], record["total_cost"]) == (
        "task_1",
        "thr_1",
        6,
        0.00003,
    )
    assert set(record) == {
        "id", "api_key_id", "session_id", "workspace_id", "timestamp", "input_tokens", "output_tokens",
        "total_tokens", "input_cost", "output_cost", "total_cost", "model", "duration", "status", "endpoint",
    }  # fmt: skip


async def test_a_dump_carries_it_all(file: Path, tmp_path: Path) -> None:
    await dump_records(f"sqlite:///{file}", tmp_path / "dump.db")
    proof = await prove(f"sqlite:///{tmp_path}/dump.db")
    assert (proof.wrong, proof.transfers, proof.pending_holds) == (0, 3, 1)


@pytest.mark.postgres
class TestPostgres:
    async def test_an_honest_ledger_is_proved_and_a_changed_one_is_not(self, migrated_postgres_url: str) -> None:
        await (await used(migrated_postgres_url)).close()
        proof = await prove(migrated_postgres_url)
        assert (proof.wrong, proof.problems, proof.transfers) == (0, (), 3)
        engine = create_async_engine(migrated_postgres_url)
        try:
            for statement in ("UPDATE ledger_transfers SET amount = 1", "TRUNCATE ledger_uses"):
                with pytest.raises(DBAPIError, match="append-only"):
                    async with engine.begin() as connection:
                        await connection.execute(text(statement))
            async with engine.begin() as connection:
                views = text("SELECT credits_balance, total_spent FROM billing_accounts")
                assert tuple((await connection.execute(views)).one()) == (Decimal("0.00006"), Decimal("0.00003"))
                await connection.execute(text("UPDATE ledger_accounts SET balance = 0 WHERE id = 'acc'"))
        finally:
            await engine.dispose()
        proof = await prove(migrated_postgres_url)
        assert "account acc: balance is 0 USD, and should be 0.00006 USD" in proof.problems

    async def test_a_copy_carries_it_all_and_goes_on_from_there(self, file: Path, postgres_url: str) -> None:
        await copy_database(f"sqlite:///{file}", postgres_url)
        assert (await prove(postgres_url)).wrong == 0
        records = open_records(postgres_url)
        await records.start()
        assert (await records.transfer(credit(1), event())).id == 4
        assert len(await records.expire_holds(LATER + timedelta(days=1))) == 1
        await records.close()
        assert (await prove(postgres_url)).problems == ()
