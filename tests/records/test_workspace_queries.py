"""What workspaces ask of SQLite goes by an index, and ten thousand chunks are stored and found in a moment."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.workspace import Permission, RevisionState, Share
from atoll.records.sql import SqlRecords, open_records
from atoll.testing.workspace_records_examples import KEY, T0, chunks, event, lineage, made, pack, revised, snapshot

MANY = 10_000
STORED_WITHIN_S = 0.2  # on an idle machine 0.06
FOUND_WITHIN_S = 0.5  # ... 0.08
WHOLE_TABLE = re.compile(r"SCAN (?!sqlite_sequence)\w+$")  # that one has a row for each table


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[SqlRecords]:
    records = open_records(f"sqlite:///{tmp_path}/atoll.db", connections=1)
    await records.start()
    yield records
    await records.close()


@contextmanager
def traced(records: SqlRecords) -> Iterator[list[str]]:
    """Every statement that the driver runs meanwhile, its values filled in."""
    statements: list[str] = []
    database: Any = records._database  # pyright: ignore[reportPrivateUsage]
    drivers: list[sqlite3.Connection] = [
        opened.connection.driver_connection for opened in (database._writer, *database._readers)
    ]
    for driver in drivers:
        driver.set_trace_callback(statements.append)
    yield statements
    for driver in drivers:
        driver.set_trace_callback(None)


async def ask_everything(records: SqlRecords) -> None:
    """Every method, with every filter."""
    base, added = await revised(records, await made(records), 3)
    own = base.lineage
    fresh = lineage()
    await records.add_lineage(fresh)
    await records.get_lineage(own)
    await records.list_lineages()
    await records.swap_lineage_key(fresh.id, KEY, b"new", "local", event())
    for deleted in (None, False, True):
        for owner in (None, "key_0"):
            for with_tree in (False, True):
                await records.list_workspaces(owner=owner, deleted=deleted, with_tree=with_tree)
    await records.swap_workspace(base, event())
    await records.get_workspace(base.id)
    await records.find_workspace("key_0", "code")
    await records.find_revision(base.id, 1)
    await records.get_revision(base.head)
    for before in (None, 3):
        for filters in ({}, {"workspace": base.id}, {"lineage": own}):
            await records.list_revisions(before=before, limit=1, **filters)
    await records.set_revision_state(added[0].id, RevisionState.READY, event())
    await records.add_snapshot(snapshot(added[0]), event())
    for filters in ({}, {"owner": "key_0"}, {"workspace": base.id}, {"lineage": own}):
        await records.list_snapshots(**filters)
    await records.find_snapshot("key_0", "snap_1")
    await records.delete_snapshot("key_0", "snap_1", event())
    await records.delete_revisions([one.id for one in added], event())
    await records.put_share(Share(base.id, "key_1", Permission.READ, T0), event())
    await records.get_share(base.id, "key_1")
    await records.list_shares(base.id)
    await records.list_shared_workspaces("key_1")
    await records.delete_share(base.id, "key_1", event())
    await records.swap_lineage_key(fresh.id, b"new", KEY, "local", event())
    placed = pack(fresh)
    await records.add_pack(placed, chunks(placed, b"a"))
    await records.refresh_packs([placed.id, "pack_none"], T0)
    await records.move_chunks(placed, chunks(placed, b"moved"), ["pack_none", "pack_gone"])
    await records.find_chunks(fresh.id, [bytes(32), KEY[:32]])
    await records.list_chunks(fresh.id, after=bytes(32))
    for of in (None, fresh.id):
        await records.list_packs(of, after="pack_0")
    await records.delete_chunks(fresh.id, [bytes(32), KEY[:32]], T0)
    await records.delete_packs(["pack_none", "pack_gone"])
    await records.delete_lineage(fresh.id)


async def test_no_question_about_workspaces_reads_a_whole_table(records: SqlRecords, tmp_path: Path) -> None:
    await made(records, "first")
    await records.ping()  # the reader connects
    with traced(records) as statements:
        await ask_everything(records)
    asked = [one for one in statements if one.startswith(("SELECT", "UPDATE", "DELETE"))]
    assert len(asked) > 60
    looking = sqlite3.connect(tmp_path / "atoll.db")
    scans = {
        (step, statement)
        for statement in asked
        for *_, step in looking.execute(f"EXPLAIN QUERY PLAN {statement}")
        if WHOLE_TABLE.match(step)
    }
    looking.close()
    assert not scans


async def test_ten_thousand_chunks_are_stored_and_found_in_a_moment(records: SqlRecords) -> None:
    await check_many(records, STORED_WITHIN_S, FOUND_WITHIN_S, clock=time.process_time)


@pytest.mark.postgres
@pytest.mark.alone
async def test_postgres_finds_ten_thousand_chunks_in_a_table_that_it_knows_little_of(postgres_url: str) -> None:
    records = open_records(postgres_url)
    await records.start()
    await check_many(records, 5.0, 2.0, clock=time.perf_counter)
    await records.close()


async def check_many(
    records: SqlRecords, stored_within_s: float, found_within_s: float, *, clock: Callable[[], float]
) -> None:
    """The best of three: others may be using the machine."""
    own = lineage()
    await records.add_lineage(own)
    stored_s: list[float] = []
    found_s: list[float] = []
    for n in range(3):
        packed = pack(own)
        stored = chunks(packed, *(b"%d %d" % (n, number) for number in range(MANY)))
        began = clock()
        await records.add_pack(packed, stored)
        stored_s.append(clock() - began)
        began = clock()
        found = await records.find_chunks(own.id, [chunk.id for chunk in stored])
        found_s.append(clock() - began)
        assert len(found) == MANY
    assert min(stored_s) < stored_within_s
    assert min(found_s[1:]) < found_within_s
