"""Dumps, copies and migrations keep the chains: what arrives is verified, and goes on where it ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from atoll.records import copy, sqlite
from atoll.records.copy import copy_database
from atoll.records.dump import dump_records, load_records
from atoll.records.migrate import upgrade
from atoll.records.postgres import engine as postgres_engine
from atoll.records.sql import open_records
from atoll.services.audit.checkpoints import Checkpoints
from atoll.services.audit.verifying import verify
from atoll.testing.memory_vault import MemoryVault
from atoll.testing.records_conformance import event
from tests.services.audit.conftest import Trail, happened


async def check(url: str, vault: MemoryVault, anchor: Path, events: int) -> None:
    """As they were written, with so many events, and so after more of them."""
    records = open_records(url)
    await records.start()
    try:
        report = await verify(records, vault, anchor)
        assert (report.findings, report.events) == ([], events)
        await records.add_events([event(tenant="key_1"), event(tenant="new")])
        job = Checkpoints(records, vault, anchor)
        await job.start()
        await job.close()
        report = await verify(records, vault, anchor)
        assert (report.findings, report.notes) == ([], [])
        assert report.events >= events + 2
    finally:
        await records.close()


async def test_a_restored_dump_is_verified_and_goes_on(any_trail: Trail, tmp_path: Path) -> None:
    dump, url = tmp_path / "dump.db", f"sqlite:///{tmp_path}/again.db"
    await dump_records(any_trail.url, dump)
    await load_records(dump, url)
    await check(url, any_trail.vault, tmp_path / "again.json", 31)


@pytest.mark.postgres
async def test_a_copy_in_postgres_is_verified_and_goes_on(
    trail: Trail, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "BATCH_ROWS", 4)
    await copy_database(trail.url, postgres_url)
    await check(postgres_url, trail.vault, trail.anchor, 31)


# As 0001 stored them, of two tenants in turns.
STORED_BY_0001 = """
INSERT INTO events (at, action, target, tenant, actor, outcome, request_id, detail) VALUES
  ('2026-03-01 12:00:00.000001', 'sandbox.created', 'sess_1', 'key_1', 'key_1', 'ok', 'r1', '{"image":"x"}'),
  ('2026-03-01 12:00:00.500000', 'key.created', 'key_2', 'key_2', 'cli', 'ok', NULL, '{"name":"\\u00e9"}'),
  ('2026-03-01 12:00:01.000000', 'sandbox.exited', 'sess_1', 'key_1', 'system', 'ok', NULL, '{}')
"""


def as_of_0001(connection: Connection) -> None:
    upgrade(connection, "0001")
    statement = STORED_BY_0001
    if connection.dialect.name == "postgresql":  # the session's zone is UTC there
        statement = statement.replace("', 'sandbox", "+00', 'sandbox").replace("', 'key.", "+00', 'key.")
    connection.execute(text(statement.replace(":", "\\:")))


async def test_events_from_before_the_chains_are_chained(any_url: str, tmp_path: Path) -> None:
    if any_url.startswith("sqlite"):
        engine = sqlite.engine(Path(any_url.removeprefix("sqlite:///")))
        with engine.connect() as connection:
            sqlite.transaction(connection, as_of_0001)
        engine.dispose()
    else:
        remote = postgres_engine(any_url, connections=1, statement_s=60)
        async with remote.begin() as connection:
            await connection.run_sync(as_of_0001)
        await remote.dispose()
    vault = MemoryVault()
    await vault.start()
    await check(any_url, vault, tmp_path / "audit.json", 3)


async def test_a17_a_thousand_of_them_in_the_way_of_a_verification(any_trail: Trail) -> None:
    await any_trail.records.add_events([happened(n, 7) for n in range(1_000)])
    assert (await any_trail.verify()).ok
