"""A process that runs a worker of somebody else's and is killed on the way; test_c01_marketplace.py looks at the rest.

`python -m tests.faults.marketplace_child URL FOLDER POINT` arms POINT in FOLDER/point, whose name stands in
ATOLL_CRASH_AT, once the worker is published and its caller has money.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.domain.key import DEFAULT_SCOPES, KeyKind
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Resources
from atoll.domain.worker import Worker
from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.services.ledger.ledger import Ledger
from atoll.services.marketplace.marketplace import Marketplace
from atoll.services.marketplace.publishing import Offer
from atoll.services.marketplace.runs import RunRequest, WorkerRun
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.testing.fake_runtime import FakeRuntime

ADMIN = Principal("admin", KeyKind.OWNER, frozenset(), admin=True)
ALICE = Principal("key_a11ce0000000", KeyKind.STANDARD, DEFAULT_SCOPES)
BOB = Principal("key_b0b000000000", KeyKind.STANDARD, DEFAULT_SCOPES)
GIVEN, PRICE = 1_000_000, 250_000
OFFER = Offer("greet", "Says hi", command=("echo", "hi"), pricing={"per_run": 0.25})


@asynccontextmanager
async def market(records: Records, folder: Path) -> AsyncIterator[tuple[Marketplace, Ledger]]:
    ledger, runtime = Ledger(records), FakeRuntime()
    await runtime.start()
    sandboxes = Sandboxes(make_sandbox_parts(records, runtime, folder))
    await sandboxes.start()
    market = Marketplace(records, sandboxes, ledger)
    try:
        yield market, ledger
    finally:
        await market.close()
        await sandboxes.close()
        await runtime.shutdown()
        await runtime.close()
        await ledger.close()


async def run(market: Marketplace, worker: Worker) -> WorkerRun:
    return await market.runs.run(BOB, worker, RunRequest(price_max_micro_usd=PRICE), Resources())


async def main(url: str, folder: str, point: str) -> None:
    records = open_records(url)
    await records.start()
    async with market(records, Path(folder)) as (shop, ledger):
        await ledger.credit(ADMIN, BOB.id, GIVEN)
        worker = await shop.publish(ALICE, OFFER)
        Path(folder, "point").write_text(point)
        await run(shop, worker)
    await records.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
