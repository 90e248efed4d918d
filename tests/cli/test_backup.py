"""`atoll backup` and `atoll restore`: the master key stays with the records that need it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atoll.cli.main import application
from atoll.records import dump
from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from atoll.services.recovery.backup import Backup


@pytest.fixture
def backed_up(tmp_path: Path) -> Path:
    """A store with the backup of the empty records in `data`."""
    (tmp_path / "data").mkdir()
    asyncio.run(_make_records(tmp_path / "data" / "atoll.db"))
    assert _run("backup", "--to", str(tmp_path / "store"), "--data", str(tmp_path / "data")) == 0
    return tmp_path / "store"


async def _make_records(file: Path) -> None:
    records = SqlRecords(Sqlite(file))
    await records.start()
    await records.close()


def _run(*arguments: str) -> int:
    return CliRunner().invoke(application([arguments[0]]), arguments).exit_code


@pytest.mark.parametrize("fails", ["before the records", "with the records", "after the records"])
def test_a_restore_that_fails_leaves_no_records_without_their_master_key(
    backed_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    key, machine = tmp_path / "data" / "master.key", tmp_path / "machine"

    async def fail(*_: object) -> None:
        if fails == "after the records":
            await load(*_)  # type: ignore[arg-type]
        raise RuntimeError("cut")

    load = dump.load_records
    if fails == "before the records":
        monkeypatch.setattr(Backup, "restore_blobs", fail)
    else:
        monkeypatch.setattr(dump, "load_records", fail)
    restore = ("restore", "--from", str(backed_up), "--master-key", str(key), "--data", str(machine))
    assert _run(*restore) == 1
    assert (machine / "master.key").exists() == (fails != "before the records")
    monkeypatch.undo()
    if fails == "after the records":
        assert (machine / "atoll.db").exists()
    else:
        assert _run(*restore) == 0
    assert (machine / "master.key").read_bytes() == key.read_bytes()
