"""Each migration on a database that holds what the version before it has written: nothing is lost or read wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from atoll.domain.sandbox import SandboxSpec, SandboxState
from atoll.records import sqlite
from atoll.records.migrate import upgrade
from atoll.records.postgres import engine as postgres_engine
from atoll.records.sql import open_records
from atoll.testing.workspace_records_examples import made

# As 0001 stored it.
SANDBOX_OF_0001 = """
INSERT INTO sandboxes (id, owner, runtime, state, live, removed, version, created_at, spec, usage)
VALUES ('sess_0123456789ab', 'key_0', 'local', 'running', true, false, 3, '2026-03-01 12:00:00.000000',
        '{"image":"x"}', '{}')
"""


def as_of_0001(connection: Connection) -> None:
    upgrade(connection, "0001")
    connection.execute(text(SANDBOX_OF_0001))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    engine = sqlite.engine(tmp_path / "atoll.db")
    with engine.connect() as connection:
        sqlite.transaction(connection, as_of_0001)
    engine.dispose()
    return f"sqlite:///{tmp_path}/atoll.db"


async def check(url: str) -> None:
    records = open_records(url)
    await records.start()
    stored = await records.get_sandbox("sess_0123456789ab")
    assert stored is not None
    assert (stored.spec, stored.state, stored.version) == (SandboxSpec(image="x"), SandboxState.RUNNING, 3)
    assert stored.spec.workspaces == ()
    assert await records.count_live() == 1
    await made(records)
    await records.close()


async def test_a_sqlite_of_0001_gets_its_workspaces(sqlite_url: str) -> None:
    await check(sqlite_url)


@pytest.mark.postgres
async def test_a_postgres_of_0001_gets_its_workspaces(postgres_url: str) -> None:
    engine = postgres_engine(postgres_url, connections=1, statement_s=60)
    async with engine.begin() as connection:
        await connection.run_sync(as_of_0001)
    await engine.dispose()
    await check(postgres_url)
