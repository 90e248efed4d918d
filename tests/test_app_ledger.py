"""The application and money: a start gives back what the life before left held, and prices are the settings'."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from atoll.app import create_app
from atoll.domain.ledger import NewHold
from atoll.services.ledger.expiring import Expiring
from atoll.settings import Settings
from atoll.testing.ledger_conformance import credit, event
from atoll.testing.memory_records import MemoryRecords


async def test_b06_a_start_gives_back_what_expired_meanwhile(tmp_path: Path) -> None:
    records = MemoryRecords()
    now = datetime.now(UTC)
    await records.transfer(credit(100), event())
    await records.hold(NewHold("hold_1", "acc", 60, now - timedelta(seconds=1)), now)
    settings = Settings.model_validate(
        {"data": tmp_path, "runtime": "fake", "server": {"port": 0}, "prices": {"output_usd_per_1k": "0.5"}}
    )
    app = create_app(settings, records=records)
    assert app.ledger.prices.default.output == Decimal(500)
    passed, expire = asyncio.Event(), app.ledger.expire

    async def told() -> int:
        gone = await expire()
        passed.set()
        return gone

    app.ledger.expire = told  # type: ignore[method-assign]
    assert isinstance(app.expiring, Expiring)
    async with app.running():
        await asyncio.wait_for(passed.wait(), 10)
        assert (await app.ledger.account("acc")).available == 100
        assert b'ledger_holds_total{outcome="expired"} 1.0' in app.metrics.render()
