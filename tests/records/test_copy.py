"""Copying SQLite to PostgreSQL: everything arrives, counts agree, numbers go on, and half a copy is none."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from atoll.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from atoll.domain.ids import new_id
from atoll.domain.sandbox import SandboxState
from atoll.domain.workspace import Pack, Permission, Share
from atoll.records import copy
from atoll.records.copy import copy_database
from atoll.records.sql import SqlRecords, open_records
from atoll.testing import workspace_records_examples as examples
from atoll.testing.records_conformance import T0, event, key, sandbox, use


@pytest.fixture
def source_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db"


async def fill(url: str) -> SqlRecords:
    records = open_records(url)
    await records.start()
    for n in range(7):
        made = sandbox(age_s=n)
        await records.add_sandbox(replace(made, name=f"büro {n}"), event(made.id))
        if n % 2:
            await records.swap_sandbox(made.to(SandboxState.FAILED, handle={"n": n}), event(made.id, "sandbox.failed"))
    for n in range(3):
        made_key = key(str(n))
        await records.add_key(made_key, event(made_key.id, "key.created"))
        await records.log_key_use([use(made_key.id)] * 4)
    await fill_workspaces(records)
    return records


async def fill_workspaces(records: SqlRecords) -> None:
    for n in range(2):
        # Names that repeat among owners, so that keys of two columns are paged through.
        made = await examples.made(records, "büro", f"key_{n}")
        made, added = await examples.revised(records, made, 4)
        for one in added:
            kept = examples.snapshot(one, f"snap_{one.number}", owner=made.owner)
            await records.add_snapshot(kept, event(kept.id, "snapshot.created"))
            await records.put_share(Share(made.id, f"key_{one.number}", Permission.READ, T0), event(made.id))
        for _ in range(2):
            packed = Pack(new_id("pack"), made.lineage, 1, T0)
            await records.add_pack(packed, examples.chunks(packed, *(secrets.token_bytes(9) for _ in range(5))))


async def everything(records: SqlRecords) -> object:
    workspaces = await records.list_workspaces(deleted=None)
    return (
        await records.list_sandboxes(removed=None),
        await records.list_keys(include_revoked=True),
        await records.list_events(),
        await records.list_lineages(),
        workspaces,
        [await records.list_revisions(workspace=one.id) for one in workspaces],
        [await records.list_snapshots(owner=one.owner) for one in workspaces],
        [await records.list_shares(one.id) for one in workspaces],
        await records.list_packs(),
        [await records.list_chunks(one.lineage) for one in workspaces],
    )


@pytest.mark.postgres
async def test_everything_arrives_and_new_rows_go_on_after_it(
    source_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "BATCH_ROWS", 3)
    source = await fill(source_url)
    counts = await copy_database(source_url, postgres_url)
    assert {name: both for name, both in counts.items() if both != (0, 0)} == {
        "sandboxes": (7, 7),
        "api_keys": (3, 3),
        "api_key_usage": (12, 12),
        "events": (39, 39),
        "event_heads": (1, 1),
        "owners": (2, 2),
        "lineages": (2, 2),
        "workspaces": (2, 2),
        "revisions": (10, 10),
        "snapshots": (8, 8),
        "shares": (8, 8),
        "packs": (4, 4),
        "chunks": (20, 20),
    }
    target = open_records(postgres_url)
    await target.start()
    assert await everything(target) == await everything(source)
    await target.add_sandbox(sandbox(), event("after"))
    await target.log_key_use([use("key_x")])
    assert (await target.list_events())[-1].target == "after"
    await target.close()
    await source.close()


@pytest.mark.postgres
async def test_an_empty_database_copies_and_counts_from_one(source_url: str, postgres_url: str) -> None:
    source = open_records(source_url)
    await source.start()
    await source.close()
    assert set((await copy_database(source_url, postgres_url)).values()) == {(0, 0)}
    target = open_records(postgres_url)
    await target.start()
    await target.add_sandbox(sandbox(), event())
    assert [stored.id for stored in await target.list_events()] == [1]
    await target.close()


@pytest.mark.postgres
async def test_a_target_with_rows_is_refused_and_left_alone(source_url: str, postgres_url: str) -> None:
    await (await fill(source_url)).close()
    target = open_records(postgres_url)
    await target.start()
    await target.add_key(key(), event())
    before = await everything(target)
    with pytest.raises(Conflict, match="holds rows already, in api_keys"):
        await copy_database(source_url, postgres_url)
    assert await everything(target) == before
    await target.close()


@pytest.mark.postgres
async def test_a_copy_cut_short_leaves_no_table_behind(
    source_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await fill(source_url)).close()

    async def fail(*_: object) -> None:
        raise ConnectionResetError("cut")

    with monkeypatch.context() as patched:
        patched.setattr(copy, "_continue_numbers", fail)
        with pytest.raises(Unavailable, match="nothing was copied"):
            await copy_database(source_url, postgres_url)
    engine = create_async_engine(postgres_url)
    async with engine.connect() as connection:
        count = await connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
        assert count.scalar() == 0
    await engine.dispose()
    await copy_database(source_url, postgres_url)


async def test_what_cannot_be_copied_is_said_before_anything_happens(source_url: str, tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    with pytest.raises(NotFound, match="there is no database"):
        await copy_database(source_url, nowhere)
    assert not (tmp_path / "atoll.db").exists()
    with pytest.raises(InvalidInput):
        await copy_database(nowhere, source_url)
    (tmp_path / "atoll.db").touch()
    with pytest.raises(Conflict, match="schema None"):
        await copy_database(source_url, nowhere)
    source = open_records(source_url)
    await source.start()
    await source.close()
    with pytest.raises(Unavailable):
        await copy_database(source_url, nowhere)
