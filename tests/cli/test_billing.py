"""`atoll billing`, without a server: credits, refunds and limits exactly, and bills as tables, JSON and CSV."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.ids import new_id
from atoll.domain.ledger import Use, UseKind
from atoll.domain.price import ModelPrice, TokenUse
from atoll.records.sql import open_records
from atoll.settings import Settings
from tests.cli.conftest import Atoll

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@pytest.fixture
def atoll(alone: Callable[..., Atoll]) -> Atoll:
    return alone(ATOLL_RUNTIME="fake")


@pytest.fixture
def payer(atoll: Atoll) -> str:
    return json.loads(atoll("keys", "create", "--name", "k", "--json").stdout)["id"]


def told(atoll: Atoll, *words: str) -> Any:
    done = atoll("billing", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_float=Decimal)


def uses(atoll: Atoll, account: str, **fields: Any) -> None:
    """The documented task: it costs 0.10308."""
    tokens = TokenUse(6548, 108)
    used = Use(
        new_id("use"), account, UseKind.MODEL, NOW, ModelPrice().cost(tokens), tokens, "gpt",
        task="task_1", workspace="ws_1", **fields,
    )  # fmt: skip

    async def store() -> None:
        records = open_records(Settings(data=Path(atoll.environment["ATOLL_DATA"])).database_url)
        await records.start()
        try:
            await records.add_use(used, NOW)
        finally:
            await records.close()

    asyncio.run(store())


def test_credits_are_given_charged_refunded_and_taken_back(atoll: Atoll, payer: str) -> None:
    assert told(atoll, "credit", payer, "10", "--description", "hello")["creditsBalance"] == 10
    uses(atoll, payer)
    account = told(atoll, "account", payer)
    assert (account["creditsBalance"], account["totalSpent"]) == (Decimal("9.89692"), Decimal("0.10308"))
    assert told(atoll, "refund", payer, "0.10308")["creditsBalance"] == 10
    assert told(atoll, "credit", payer, "-0.5")["creditsBalance"] == Decimal("9.5")
    kinds = [one["type"] for one in told(atoll, "transactions", payer)]
    assert kinds == ["credit_adjustment", "refund", "usage_deduction", "credit_purchase"]
    table = atoll("billing", "account").stdout
    assert payer in table and "9.5" in table and "issued" not in table
    refused = atoll("billing", "credit", payer, "-100")
    assert (refused.returncode, refused.stderr) == (1, "atoll: The balance is 9.5 dollars: 100 cannot be taken.\n")


def test_b03_what_is_given_once_is_given_once(atoll: Atoll, payer: str) -> None:
    for _ in range(2):
        assert told(atoll, "credit", payer, "5", "--once", "invoice-7")["creditsBalance"] == 5
    assert atoll("billing", "credit", payer, "6", "--once", "invoice-7").returncode == 1


def test_limits_are_set_left_and_removed(atoll: Atoll, payer: str) -> None:
    found = told(atoll, "limits", payer, "--daily", "10", "--monthly", "300")
    assert (found["dailyLimit"], found["monthlyLimit"]) == (10, 300)
    found = told(atoll, "limits", payer, "--daily", "none")
    assert (found["dailyLimit"], found["monthlyLimit"]) == (None, 300)


def test_bills_are_tables_and_sheets(atoll: Atoll, payer: str) -> None:
    told(atoll, "credit", payer, "1", "--description", "=1+1")
    uses(atoll, payer)
    assert "0.10308" in atoll("billing", "usage", payer).stdout
    rows = list(csv.DictReader(io.StringIO(atoll("billing", "usage", payer, "--csv").stdout)))
    assert [(row["id"], row["totalCost"], row["status"]) for row in rows] == [("task_1", "0.10308", "unknown")]
    sheet = atoll("billing", "transactions", payer, "--csv").stdout
    assert [row["description"] for row in csv.DictReader(io.StringIO(sheet))] == ["", "'=1+1"]
    assert told(atoll, "costs", "--by", "day")[0]["name"] == "2026-03-14"
    assert told(atoll, "costs", payer, "--by", "workspace")[0]["totalCost"] == Decimal("0.10308")
    assert told(atoll, "costs", "--internal") == []
    assert told(atoll, "usage", payer, "--from", "2026-03-15") == []


WRONG = {
    ("credit", "KEY", "ten"): "DOLLARS must be a number of dollars, not 'ten'",
    ("credit", "KEY", "0"): "amount must not be 0",
    ("limits", "KEY", "--daily", "lots"): "--daily must be a number of dollars, not 'lots'",
    ("costs", "--by", "colour"): "--by must be one of account",
    ("transactions", "KEY", "--type", "gift"): "--type must be one of credit_purchase",
    ("usage", "KEY", "--from", "yesterday"): "--from must be a moment such as",
}


def test_what_is_wrong_is_named(atoll: Atoll, payer: str) -> None:
    for words, said in WRONG.items():
        refused = atoll("billing", *(payer if word == "KEY" else word for word in words))
        assert (refused.returncode, refused.stderr[: len(said) + 7]) == (2, f"atoll: {said}")


@pytest.mark.parametrize("bill", ["usage", "transactions"])
def test_without_an_id_or_a_key_it_says_what_is_missing(atoll: Atoll, bill: str) -> None:
    done = atoll("billing", bill)
    said = f"atoll: ID is missing: atoll billing {bill} ID; without one it is the account of ATOLL_API_KEY\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_an_account_that_is_nobodys_is_not_found(atoll: Atoll) -> None:
    refused = atoll("billing", "credit", "key_0123456789ab", "5")
    assert refused.returncode == 1 and "not found" in refused.stderr
