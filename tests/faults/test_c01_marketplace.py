"""C01 for the marketplace: a server that dies in the middle of a run has charged all of it or nothing, once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atoll.domain.crash import POINTS
from atoll.domain.ledger import TransferKind
from atoll.domain.worker import WorkerQuery
from atoll.records.base import Records
from atoll.records.ledger_proof import prove
from atoll.records.sql import open_records
from tests.faults.marketplace_child import ALICE, BOB, GIVEN, PRICE, market, run
from tests.records.migrated import migrated_sqlite

ROOT = Path(__file__).parents[2]
# At each: whether the run is charged by then.
CASES = {"ledger.hold.taken": False, "marketplace.ran": False, "ledger.settle.done": True}


def test_every_point_of_the_marketplace_is_in_a_case() -> None:
    assert {one for one in CASES if one.startswith("marketplace.")} == {
        one for one in POINTS if one.startswith("marketplace.")
    }


@pytest.mark.parametrize("point", CASES)
async def test_c01_a_run_that_is_cut_short_is_charged_and_posted_once_or_not_at_all(point: str, tmp_path: Path) -> None:
    url = await migrated_sqlite(tmp_path / "atoll.db")
    environment = {**os.environ, "ATOLL_CRASH_AT": f"@{tmp_path / 'point'}"}
    words = [sys.executable, "-m", "tests.faults.marketplace_child", url, str(tmp_path), point]
    child = await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=environment)
    async with asyncio.timeout(40):
        assert await child.wait() == -signal.SIGKILL
    assert (await prove(url)).problems == ()
    records = open_records(url)
    await records.start()
    try:
        await records.expire_holds(datetime.now(UTC) + timedelta(days=1))
        charged = PRICE if CASES[point] else 0
        assert await balances(records) == (GIVEN - charged, charged)
        async with market(records, tmp_path) as (shop, _):
            [worker] = await records.search_workers(WorkerQuery(BOB.id))
            ran = await run(shop, worker)
        assert ran.charged == PRICE
        assert await balances(records) == (GIVEN - charged - PRICE, charged + PRICE)
        earned = await records.list_transfers(ALICE.id, kind=TransferKind.EARNING)
        assert len(earned) == 1 + CASES[point]
    finally:
        await records.close()
    assert (await prove(url)).problems == ()


async def balances(records: Records) -> tuple[int, int]:
    """The caller's and the author's, with nothing held."""
    found = [await records.billing_account(one.id, datetime.now(UTC)) for one in (BOB, ALICE)]
    assert [one.held for one in found] == [0, 0]
    return found[0].balance, found[1].balance
