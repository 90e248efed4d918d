"""Marks of limits that are passed reach the payer's event stream and webhooks, each once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from atoll.domain.ids import new_id
from atoll.domain.ledger import Use, UseKind
from atoll.domain.price import Cost
from tests.surfaces.computesdk.test_events import some, streamed
from tests.surfaces.computesdk.test_webhooks import OUTBOUND, receiving
from tests.surfaces.testbase.conftest import Office, OpenOffice

MARKS = {"bound": "daily", "limit_micro_usd": 1_000_000}


async def spends(office: Office, account: str, micro: int) -> None:
    now = datetime.now(UTC)
    used = Use(new_id("use"), account, UseKind.MODEL, now, Cost(micro), task="task_1")
    await office.house.app.ledger.charge(used)


async def test_half_most_and_all_of_a_days_limit_are_told_once_each(open_office: OpenOffice) -> None:
    async with open_office(outbound=OUTBOUND) as office, receiving() as receiver:
        made = await office.make()
        await office.call("POST", f"/billing/admin/{made['id']}/credits", json={"amount": 5})
        await office.call("POST", f"/billing/admin/{made['id']}/limits", json={"dailyLimit": 1})
        body = {"url": receiver.url, "events": ["budget.warning"]}
        assert (await office.call("POST", "/api/webhooks", made["key"], json=body)).status_code == 201
        async with streamed(office.house, made["key"], action="budget.warning") as messages:
            for micro in (400_000, 150_000, 10_000, 440_000, 10_000):  # 40, 55, 56, 100 and 101 %
                await spends(office, made["id"], micro)
            events = await some(messages, 3)
        assert [one["detail"]["percent"] for one in events] == [50, 80, 100]
        assert all(MARKS.items() <= one["detail"].items() for one in events)
        await receiver.has(3)
        told: list[Any] = [json.loads(one)["data"]["detail"]["percent"] for _, one in receiver.calls]
        assert told == [50, 80, 100]
        other = await office.make()
        seen = await office.call("GET", "/api/events?action=budget.warning", other["key"])
        assert "budget.warning" not in seen.text
