"""The documented account, task and bills again, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from atoll.records.sql import open_records
from atoll.testing.memory_records import MemoryRecords
from tests.records.migrated import migrated_sqlite
from tests.surfaces.testbase.conftest import Office, OpenOffice
from tests.surfaces.testbase.test_billing import exact, ran


@pytest.fixture
async def office(open_office: OpenOffice, tmp_path: Path) -> AsyncIterator[Office]:
    records = open_records(await migrated_sqlite(tmp_path / "real.db"))
    await records.start()
    async with open_office(records=cast("MemoryRecords", records)) as opened:
        yield opened


async def test_the_documented_bill(office: Office) -> None:
    made = await office.make()
    path = f"/billing/admin/{made['id']}"
    assert (await office.call("POST", path + "/credits", json={"amount": 10})).status_code == 200
    task = await ran(office.house.records, made["id"])
    account = await exact(office, "/billing/account", made["key"])
    assert (account["creditsBalance"], account["totalSpent"]) == (Decimal("9.89692"), Decimal("0.10308"))
    stats = await exact(office, "/billing/stats?from=2026-03-14&to=2026-03-14", made["key"])
    assert (stats["totalTokens"], stats["totalCost"], stats["successRate"]) == (6656, Decimal("0.10308"), 100)
    (record,) = (await exact(office, "/billing/usage", made["key"]))["records"]
    assert (record["id"], record["totalCost"], record["duration"]) == (task.id, Decimal("0.10308"), 3000)
    (day,) = (await exact(office, "/billing/costs?by=day", made["key"]))["costs"]
    assert (day["name"], day["charged"]) == ("2026-03-14", Decimal("0.10308"))
    found: list[Any] = (await exact(office, "/billing/transactions", made["key"]))["transactions"]
    assert [(one["type"], one["amount"]) for one in found] == [
        ("usage_deduction", Decimal("-0.10308")),
        ("credit_purchase", 10),
    ]
    sheet = (await office.call("GET", "/billing/costs?by=workspace&format=csv", made["key"])).text
    assert sheet.split("\r\n")[1].startswith("ws_1,1,6548,0,108,0.09822,0.00486,0.10308,0.10308,")
