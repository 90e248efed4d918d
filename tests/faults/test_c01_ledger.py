"""C01 for money: the process dies at every point of a posting, and anywhere; no credit is lost or made, no hold stays.

B03 and B06 besides: what is asked for again after the crash has one effect.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.crash import POINTS
from atoll.records.ledger import UseQuery
from atoll.records.ledger_proof import prove
from atoll.records.sql import SqlRecords, open_records
from atoll.services.ledger.ledger import Ledger
from tests.faults.ledger_child import ACCOUNT, COST, GIVEN, HELD, LASTS_S, credit, use
from tests.records.migrated import migrated_postgres_url, migrated_sqlite, postgres_template
from tests.records.postgres import postgres_server

__all__ = ["migrated_postgres_url", "postgres_server", "postgres_template"]

ROOT = Path(__file__).parents[2]
BEFORE, AFTER = "records.write.before_commit", "records.write.after_commit"
CASES = [
    (step, point)
    for step, own in (("credit", ()), ("hold", ("ledger.hold.taken",)), ("settle", ("ledger.settle.done",)))
    for point in (BEFORE, AFTER, *own)
]


POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
# What differs between the databases is the commit: on PostgreSQL the longest of the steps will do.
BOTH = [("sqlite", *case) for case in CASES] + [
    pytest.param("postgres", *case, marks=pytest.mark.postgres) for case in CASES if case[0] == "settle"
]


@pytest.fixture(params=["sqlite", POSTGRES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return asyncio.run(migrated_sqlite(tmp_path / "atoll.db"))
    return request.getfixturevalue("migrated_postgres_url")


@asynccontextmanager
async def child(url: str, tmp_path: Path, *words: str) -> AsyncIterator[Any]:
    file = tmp_path / "point"
    environment = {**os.environ, "ATOLL_CRASH_AT": f"@{file}"}
    command = [sys.executable, "-m", "tests.faults.ledger_child", url, str(file), *words]
    started = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=PIPE)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


@asynccontextmanager
async def left_behind(url: str) -> AsyncIterator[SqlRecords]:
    """The store afterwards, which must be whole now and when the test has gone on with it."""
    assert (await prove(url)).problems == ()
    records = open_records(url)
    await records.start()
    try:
        yield records
    finally:
        await records.close()
    assert (await prove(url)).problems == ()


def test_every_point_of_the_ledger_is_in_a_case() -> None:
    assert {point for _, point in CASES} - {BEFORE, AFTER} == {one for one in POINTS if one.startswith("ledger.")}


@pytest.mark.parametrize(("url", "step", "point"), BOTH, indirect=["url"])
async def test_c01_a_posting_that_is_cut_short_is_all_there_or_not_at_all(
    url: str, tmp_path: Path, step: str, point: str
) -> None:
    async with child(url, tmp_path, step, point) as started, asyncio.timeout(30):
        assert await started.wait() == -signal.SIGKILL, "the point was not reached"
    done = point != BEFORE
    async with left_behind(url) as records:
        ledger = Ledger(records)
        account = await ledger.account(ACCOUNT)
        if step == "credit":
            assert account.balance == GIVEN * (1 + done)
            await credit(ledger, "second")
            assert (await ledger.account(ACCOUNT)).balance == 2 * GIVEN
        elif step == "hold":
            assert (account.balance, account.held) == (GIVEN, HELD * done)
        else:
            [found] = [await records.get_hold(one.id) for one in await records.pending_holds()] or [None]
            assert (found is None) == done
            assert (account.balance, account.held) == (GIVEN - COST * done, HELD * (not done))
            if found is not None:
                await ledger.settle(found, use())
            assert (await ledger.account(ACCOUNT)).balance == GIVEN - COST
            assert [one.charged for one in await records.list_uses(UseQuery())] == [COST]
        held = [one.id for one in await records.pending_holds()]
        assert len(held) == (step == "hold" and done)
        expired = await records.expire_holds(datetime.now(UTC) + timedelta(seconds=LASTS_S))
        assert [one.id for one in expired] == held
        assert (await ledger.account(ACCOUNT)).held == 0


async def test_b06_c01_kill_9_in_the_midst_of_many_loses_and_makes_no_credit(url: str, tmp_path: Path) -> None:
    async with child(url, tmp_path, "spend") as started, asyncio.timeout(30):
        told = [(await started.stdout.readline()).decode().strip() for _ in range(40)]
        started.kill()
        await started.wait()
        told += (await started.stdout.read()).decode().split()
    async with left_behind(url) as records:
        uses = await records.list_uses(UseQuery(), limit=100_000)
        assert {one for one in told if len(one) == len("use_") + 24} <= {one.id for one in uses}
        await records.expire_holds(datetime.now(UTC) + timedelta(seconds=LASTS_S))
        account = await Ledger(records).account(ACCOUNT)
        assert (account.balance, account.held, account.spent) == (GIVEN - COST * len(uses), 0, COST * len(uses))
