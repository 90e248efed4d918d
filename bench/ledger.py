"""The ledger on SQLite: durable transfers a second of many clients, beside a bare loop of one sync a transfer."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.ledger import NewHold, NewTransfer, TransferKind, Use, UseKind
from atoll.domain.price import Cost, TokenUse
from atoll.records.base import Records
from atoll.records.sql import open_records
from bench.figures import Report

CLIENTS = 64
ACCOUNTS = 16


def ledger(report: Report, transfers: int) -> None:
    """In a folder of its own, on the disk of the temporary files; `transfers` of each kind."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder:
        report.value(
            "ledger.bare",
            "ledger: bare sqlite3, one sync a transfer",
            _bare_per_s(Path(folder) / "bare.db", min(transfers, 2_000)),
            "/s",
        )
        charged_per_s, pairs_per_s = asyncio.run(_measured(f"sqlite:///{folder}/atoll.db", transfers))
        report.value(
            "ledger.transfers",
            f"ledger: durable transfers, {CLIENTS} clients",
            charged_per_s,
            "/s",
            against="ledger.bare",
            goal=">= 500",
        )
        report.value("ledger.calls", f"ledger: a hold taken and settled, {CLIENTS} clients", pairs_per_s, "/s")


async def _measured(url: str, transfers: int) -> tuple[float, float]:
    records = open_records(url)
    await records.start()
    now = datetime.now(UTC)
    for number in range(ACCOUNTS):
        account = _account(number)
        await records.transfer(
            NewTransfer(account, TransferKind.PURCHASE, 10**12),
            Event("billing.credited", account, account, actor="bench"),
        )

    async def charge(number: int) -> None:
        await records.add_use(_use(number, now), now)

    async def call(number: int) -> None:
        wanted = NewHold(new_id("hold"), _account(number), 500_000, now + timedelta(hours=1))
        await records.post_hold((await records.hold(wanted, now)).id, _use(number, now), now)

    try:
        await _per_s(charge, transfers // 10, records)
        return await _per_s(charge, transfers, records), await _per_s(call, transfers, records)
    finally:
        await records.close()


async def _per_s(work: Callable[[int], Awaitable[None]], times: int, records: Records) -> float:
    """How often a second CLIENTS that each wait for their answer do it."""
    numbers = iter(range(times))

    async def client() -> None:
        for number in numbers:
            await work(number)

    before = len(await records.all_transfers(limit=10**9))
    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(CLIENTS)])
    took_s = time.perf_counter() - began
    made = len(await records.all_transfers(limit=10**9)) - before
    if made != times:
        raise RuntimeError(f"{made} transfers, not {times}")
    return times / took_s


def _account(number: int) -> str:
    return f"user_{number % ACCOUNTS:024x}"


def _use(number: int, now: datetime) -> Use:
    tokens, cost = TokenUse(6548, 108), Cost(98_220, 4_860)
    return Use(new_id("use"), _account(number), UseKind.MODEL, now, cost, tokens, model="m", task="task_1")


def _bare_per_s(path: Path, transfers: int) -> float:
    """A balance and a row, and a sync for each."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, balance INTEGER);"
            "CREATE TABLE transfers (id INTEGER PRIMARY KEY, account TEXT, amount INTEGER);"
            "INSERT INTO accounts VALUES ('a', 0)"
        )
        began = time.perf_counter()
        for _ in range(transfers):
            database.execute("BEGIN IMMEDIATE")
            database.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 'a'")
            database.execute("INSERT INTO transfers (account, amount) VALUES ('a', 1)")
            database.execute("COMMIT")
        return transfers / (time.perf_counter() - began)
