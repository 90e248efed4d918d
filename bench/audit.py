"""The audit trail: what an event costs its change in the store, and how long `atoll audit verify` takes for many."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from atoll.domain.event import Event
from atoll.records.sql import SqlRecords, open_records
from atoll.services.audit.checkpoints import Checkpoints
from atoll.vaults.local_key import LocalKey
from bench.figures import Report

TENANTS = 20
BATCH = 500
APPENDS = 1_000


def audit(report: Report, events: int) -> None:
    """In a data folder of its own, on SQLite; verified by the command itself, its start included."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder:
        data = Path(folder)
        append_us = asyncio.run(_filled(data, events))
        report.value("audit.append", "audit: an event on the end of its chain, in a transaction", append_us, "us")
        command = [sys.executable, "-m", "atoll.cli.main", "audit", "verify", "--data", folder, "--json"]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_COLOR": "1"})
        took_s = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"audit verify: {done.stdout}{done.stderr}")
        report.value("audit.verify", f"audit: verify {events:,} events, the whole command", took_s, "s", goal="<= 3 s")


async def _filled(data: Path, events: int) -> float:
    """Events of several tenants with checkpoints in between; microseconds for one in a transaction of many."""
    records = open_records(f"sqlite:///{data}/atoll.db")
    vault = LocalKey(data / "master.key")
    await records.start()
    await vault.start()
    job = Checkpoints(records, vault, data / "audit.json")
    await job.start()
    for first in range(0, events, BATCH):
        await records.add_events([_event(n) for n in range(first, min(first + BATCH, events))])
        if first % (20 * BATCH) == 0:
            await job.make()
    append_us = await _append_us(records)
    await job.close()
    await records.close()
    return append_us


async def _append_us(records: SqlRecords) -> float:
    some = [_event(n) for n in range(APPENDS)]
    began = time.perf_counter()
    await records.add_events(some)
    return (time.perf_counter() - began) / APPENDS * 1e6


def _event(n: int) -> Event:
    tenant = f"key_{n % TENANTS:012x}"
    return Event(
        "sandbox.created",
        f"sess_{n:012x}",
        tenant,
        tenant,
        request_id=secrets.token_hex(8),
        detail={"image": "host", "network": "none"},
        at=datetime.now(UTC),
        credential=tenant,
        address="127.0.0.1",
    )
