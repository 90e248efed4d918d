"""`atoll backup` and `atoll restore`: the master key stays with the records that need it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atoll.app import create_app
from atoll.cli.main import application
from atoll.domain.errors import Conflict
from atoll.records import dump
from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from atoll.services.recovery.backup import Backup
from atoll.settings import load


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


def _failure(*arguments: str) -> str:
    """What a command says that fails."""
    ran = CliRunner().invoke(application([arguments[0]]), arguments)
    assert ran.exit_code == 1 and ran.output == ""
    return str(ran.exception)


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


DYING = """
import os
from atoll.cli.main import main
from atoll.services.recovery.backup import Backup
Backup.restore_blobs = lambda *_: os._exit(9)
main()
"""


def test_no_server_starts_where_a_restore_was_killed_until_it_is_done(backed_up: Path, tmp_path: Path) -> None:
    key, machine = tmp_path / "data" / "master.key", tmp_path / "machine"
    restore = ("restore", "--from", str(backed_up), "--master-key", str(key), "--data", str(machine))
    assert subprocess.run([sys.executable, "-c", DYING, *restore], check=False).returncode == 9

    async def start() -> None:
        async with create_app(load(overrides={"data": machine, "runtime": "fake"})).running():
            pass

    with pytest.raises(Conflict, match=r"was cut short: run it again; or remove .*half-restored"):
        asyncio.run(start())
    left = {file.name for file in machine.iterdir()}
    assert {"half-restored", "master.key"} <= left and not {"atoll.db", "owner.key"} & left
    assert _run(*restore) == 0
    assert not (machine / "half-restored").exists()
    asyncio.run(start())
    assert "already" in _failure(*restore)
    asyncio.run(start())


def test_a_wrong_master_key_is_told_by_the_name_that_was_given(backed_up: Path, tmp_path: Path) -> None:
    machine, given = tmp_path / "machine", tmp_path / "given"
    restore = ("restore", "--from", str(backed_up), "--master-key", str(given), "--data", str(machine))
    assert _failure(*restore) == f"--master-key {given} cannot be read: No such file or directory"
    given.mkdir()
    assert _failure(*restore) == f"--master-key {given} cannot be read: Is a directory"
    given.rmdir()
    for size in (0, 5, 33):
        given.write_bytes(bytes(size))
        assert _failure(*restore) == f"--master-key {given} is no master key: one has 32 bytes"
    assert not machine.exists()
    given.write_bytes(bytes(32))
    assert _failure(*restore).startswith(f"{given} is not the master key of that backup")
    assert [file.name for file in machine.iterdir() if file.name in ("master.key", "half-restored")] == []


def test_a_backup_says_where_it_is_and_what_is_lost_with_it(
    backed_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"

    def back_up(*to: str) -> tuple[str, str]:
        ran = CliRunner().invoke(application(["backup"]), ["backup", "--data", str(data), *to])
        assert ran.exit_code == 0
        return ran.stdout, ran.stderr

    told, warned = back_up()
    assert f" in {(data / 'blobs').as_uri()}: " in told
    assert "warning:" in warned and "is the store of the blobs itself" in warned
    told, warned = back_up("--to", str(backed_up))
    assert f" in {backed_up.as_uri()}: " in told
    assert f"lies on the same disk as {data}" in warned
    monkeypatch.setattr("atoll.cli.backup._disk_of", lambda path: str(path).startswith(str(data)))
    assert "warning:" not in back_up("--to", str(backed_up))[1]
