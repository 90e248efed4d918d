"""Dumps: the records of either database as one SQLite file, and a server on it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, NotFound, Unavailable
from atoll.records.dump import check_empty, dump_records, load_records, packs_in
from atoll.records.sql import open_records
from tests.records.test_copy import everything, fill


async def test_sqlite_there_and_back_beside_a_running_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/atoll.db"
    records = await fill(url)
    before = await everything(records)
    dump = tmp_path / "dump.db"
    await dump_records(url, dump)
    await records.close()
    assert [name for name in os.listdir(tmp_path) if name.startswith("dump")] == ["dump.db"]
    assert len(packs_in(dump)) == 4
    again = f"sqlite:///{tmp_path}/sub/again.db"
    await check_empty(again)
    await load_records(dump, again)
    assert not dump.exists()
    with pytest.raises(Conflict, match="database already"):
        await check_empty(again)
    restored = open_records(again)
    await restored.start()
    try:
        assert await everything(restored) == before
    finally:
        await restored.close()


@pytest.mark.postgres
async def test_a_dump_of_postgres_serves_on_sqlite(tmp_path: Path, postgres_url: str) -> None:
    records = await fill(postgres_url)
    try:
        before = await everything(records)
        dump = tmp_path / "dump.db"
        await dump_records(postgres_url, dump)
    finally:
        await records.close()
    assert len(packs_in(dump)) == 4
    url = f"sqlite:///{tmp_path}/atoll.db"
    await load_records(dump, url)
    restored = open_records(url)
    await restored.start()
    try:
        assert await everything(restored) == before
    finally:
        await restored.close()


async def test_what_cannot_be_dumped(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await dump_records(f"sqlite:///{tmp_path}/none.db", tmp_path / "dump.db")
    (tmp_path / "junk.db").write_bytes(b"this is no database, however long it may be" * 100)
    with pytest.raises(Unavailable):
        await dump_records(f"sqlite:///{tmp_path}/junk.db", tmp_path / "dump.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(Conflict, match="schema"):
        await dump_records(f"sqlite:///{tmp_path}/empty.db", tmp_path / "dump2.db")


@pytest.mark.postgres
async def test_a_dump_is_loaded_into_an_empty_postgres_only(tmp_path: Path, postgres_url: str) -> None:
    url = f"sqlite:///{tmp_path}/atoll.db"
    records = await fill(url)
    before = await everything(records)
    await records.close()
    dump = tmp_path / "dump.db"
    await dump_records(url, dump)
    await check_empty(postgres_url)
    await load_records(dump, postgres_url)
    with pytest.raises(Conflict, match="holds rows already"):
        await check_empty(postgres_url)
    restored = open_records(postgres_url)
    await restored.start()
    try:
        assert await everything(restored) == before
    finally:
        await restored.close()
