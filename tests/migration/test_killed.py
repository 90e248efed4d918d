"""C14: a migration that is killed, wherever, leaves the old schema or the new one, and the next start goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atoll.domain import crash
from atoll.records.migrations import HEAD
from atoll.records.schema import TABLES
from atoll.records.sql import open_records
from atoll.testing.records_conformance import event, sandbox

HERE = Path(__file__).parent
NAMES = sorted(table.name for table in TABLES)
POINTS = sorted(point for point in crash.POINTS if point.startswith("records.migrate."))
STEP = 4  # one statement in four of all migrations has a run: another fourth each time
STATEMENTS_S = 200
START = """
import asyncio, sys
from killed_upgrades import migrate
asyncio.run(migrate(sys.argv[1]))
"""


def run(*arguments: str, within_s: float = 50, **environ: str) -> subprocess.CompletedProcess[str]:
    # From a folder of its own: nothing may be looked for below the current one.
    return subprocess.run(
        [sys.executable, *arguments],
        cwd="/",
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=within_s,
    )


def check_kills(url: str) -> None:
    first = random.randint(1, STEP)
    done = run(str(HERE / "killed_upgrades.py"), url, str(first), str(STEP), within_s=STATEMENTS_S)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    *killed, last = found
    assert len(killed) > len(NAMES) // STEP, "hardly a statement was interrupted"
    for left in killed:
        assert (left["revision"], left["tables"]) == (None, []), f"half a schema stayed: {left}"
    assert last == {"killed_at": None, "revision": HEAD, "tables": NAMES}


async def check_points(url: str, point: str) -> None:
    killed = await asyncio.to_thread(run, "-c", START, url, ATOLL_CRASH_AT=point, PYTHONPATH=str(HERE))
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stderr}"
    records = open_records(url)
    await records.start()
    await records.add_sandbox(sandbox(), event())
    await records.close()


@pytest.mark.timeout(STATEMENTS_S + 10)
def test_c14_sqlite_survives_a_kill_at_a_statement(tmp_path: Path) -> None:
    check_kills(f"sqlite:///{tmp_path}/atoll.db")


@pytest.mark.postgres
@pytest.mark.timeout(STATEMENTS_S + 10)
async def test_c14_postgres_survives_a_kill_at_a_statement(postgres_url: str) -> None:
    await asyncio.to_thread(check_kills, postgres_url)


@pytest.mark.parametrize("point", POINTS)
async def test_c14_sqlite_survives_a_kill_at_each_crash_point(tmp_path: Path, point: str) -> None:
    await check_points(f"sqlite:///{tmp_path}/atoll.db", point)


@pytest.mark.postgres
@pytest.mark.parametrize("point", POINTS)
async def test_c14_postgres_survives_a_kill_at_each_crash_point(postgres_url: str, point: str) -> None:
    await check_points(postgres_url, point)
