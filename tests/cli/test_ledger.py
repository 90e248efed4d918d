"""`atoll ledger verify`: what it says and its exit codes, on the database of a data folder."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from atoll.cli.main import application
from atoll.domain.errors import NotFound
from atoll.records.sql import open_records
from atoll.testing.ledger_conformance import credit, event
from tests.records.migrated import migrated_sqlite


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(application(["ledger"]), ["ledger", "verify", "--data", str(data), *arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    async def fill() -> None:
        records = open_records(await migrated_sqlite(tmp_path / "atoll.db"))
        await records.start()
        for _ in range(3):
            await records.transfer(credit(100), event())
        await records.close()

    asyncio.run(fill())
    return tmp_path


def test_a_ledger_that_adds_up_is_proved(data: Path) -> None:
    done = run(data)
    assert (done.exit_code, done.output.split(":")[0]) == (0, "3 transfers replayed")
    assert json.loads(run(data, "--json").output) == {
        "ok": True,
        "transfers": 3,
        "accounts": 2,
        "pendingHolds": 0,
        "totalMicroUsd": 0,
        "wrong": 0,
        "problems": [],
    }


def test_what_is_wrong_is_named_with_exit_code_1(data: Path) -> None:
    with closing(sqlite3.connect(data / "atoll.db")) as other, other:
        other.execute("UPDATE ledger_accounts SET balance = 1 WHERE id = 'acc'")
    done = run(data)
    assert done.exit_code == 1
    assert "account acc: balance is 0.000001 USD, and should be 0.0003 USD" in done.output.splitlines()
    assert json.loads(run(data, "--json").output)["ok"] is False


def test_of_many_problems_the_first_are_told_and_all_are_counted(data: Path) -> None:
    with closing(sqlite3.connect(data / "atoll.db")) as other, other:
        other.executemany("INSERT INTO ledger_days VALUES ('acc', ?, 1)", [(f"day {n:03}",) for n in range(130)])
    done = run(data)
    assert len(done.output.splitlines()) == 101
    assert done.output.splitlines()[-1] == "and 30 more"


def test_without_a_database_there_is_nothing_to_prove(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path).exception, NotFound)
