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


# As 0002 stored them: a workspace with a fork, a snapshot with a key of its own, a lineage that is left over.
STORED_BY_0002 = """
INSERT INTO lineages (id, vault, key, created_at) VALUES
  ('lin_1', 'local', NULL, '2026-03-01 12:00:00.000000'), ('lin_2', 'local', NULL, '2026-03-01 12:00:00.000000'),
  ('lin_3', 'local', NULL, '2026-03-01 12:00:00.000000'), ('lin_4', 'local', NULL, '2026-03-01 12:00:00.000000');
INSERT INTO workspaces
  (id, owner, name, lineage, head, created_at, updated_at, tags, quota_bytes, quota_inodes, automatic, version) VALUES
  ('ws_1', 'key_0', 'a', 'lin_1', 'rev_1', '2026-03-01 12:00:00', '2026-03-01 12:00:00', '[]', 1, 1, true, 1),
  ('ws_2', 'key_0', 'b', 'lin_1', 'rev_1', '2026-03-01 12:00:00', '2026-03-01 12:00:00', '[]', 1, 1, true, 1),
  ('ws_3', 'key_1', 'a', 'lin_3', 'rev_2', '2026-03-01 12:00:00', '2026-03-01 12:00:00', '[]', 1, 1, true, 1);
INSERT INTO revisions
  (id, workspace, number, lineage, tree, reason, actor, created_at, entries, bytes, stored_bytes, state) VALUES
  ('rev_1', 'ws_1', 1, 'lin_1', '00', 'created', 'key_0', '2026-03-01 12:00:00', 1, 0, 0, 'ready');
INSERT INTO snapshots (owner, id, workspace, revision, lineage, tree, created_at, entries, bytes, kept) VALUES
  ('key_0', 'snap_1', 'ws_1', 'rev_1', 'lin_2', '00', '2026-03-01 12:00:00', 1, 0, false);
INSERT INTO packs (id, lineage, bytes, created_at) VALUES
  ('pack_1', 'lin_1', 1, '2026-03-01 12:00:00'), ('pack_2', 'lin_1', 20, '2026-03-01 12:00:00'),
  ('pack_3', 'lin_2', 300, '2026-03-01 12:00:00'), ('pack_4', 'lin_3', 4000, '2026-03-01 12:00:00'),
  ('pack_5', 'lin_4', 50000, '2026-03-01 12:00:00')
"""


def as_of_0002(connection: Connection) -> None:
    upgrade(connection, "0002")
    for statement in STORED_BY_0002.split(";"):
        connection.execute(text(statement))


async def check_stored(url: str) -> None:
    records = open_records(url)
    await records.start()
    owners = {lineage.id: lineage.owner for lineage in await records.list_lineages()}
    assert owners == {"lin_1": "key_0", "lin_2": "key_0", "lin_3": "key_1", "lin_4": ""}
    assert [await records.stored_bytes(owner) for owner in ("key_0", "key_1", "key_2")] == [321, 4000, 0]
    await records.delete_lineage("lin_4")
    assert await records.stored_bytes("") == 0
    await records.close()


async def test_what_a_sqlite_of_0002_has_stored_is_its_owners(tmp_path: Path) -> None:
    engine = sqlite.engine(tmp_path / "atoll.db")
    with engine.connect() as connection:
        sqlite.transaction(connection, as_of_0002)
    engine.dispose()
    await check_stored(f"sqlite:///{tmp_path}/atoll.db")


@pytest.mark.postgres
async def test_what_a_postgres_of_0002_has_stored_is_its_owners(postgres_url: str) -> None:
    engine = postgres_engine(postgres_url, connections=1, statement_s=60)
    async with engine.begin() as connection:
        await connection.run_sync(as_of_0002)
    await engine.dispose()
    await check_stored(postgres_url)


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
