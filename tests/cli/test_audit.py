"""`atoll audit`: what it says and its exit codes, on the database of a data folder."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from atoll.cli.main import application
from atoll.domain.errors import NotFound
from atoll.records.sql import open_records
from atoll.services.audit.checkpoints import Checkpoints
from atoll.vaults.local_key import LocalKey


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(application([arguments[0]]), [*arguments, "--data", str(data)])


async def _checkpoint(data: Path) -> None:
    """As a server that starts and ends."""
    records, vault = open_records(f"sqlite:///{data}/atoll.db"), LocalKey(data / "master.key")
    await records.start()
    await vault.start()
    job = Checkpoints(records, vault, data / "audit.json")
    await job.start()
    await job.close()
    await records.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with three keys, one of them revoked, and a checkpoint."""
    for name in ("one", "two", "three"):
        made = run(tmp_path, "keys", "create", "--name", name, "--json")
        assert made.exit_code == 0, made.output
    assert run(tmp_path, "keys", "revoke", json.loads(made.output)["id"]).exit_code == 0
    asyncio.run(_checkpoint(tmp_path))
    return tmp_path


def tampered(data: Path, statement: str) -> None:
    with closing(sqlite3.connect(data / "atoll.db")) as other, other:
        assert other.execute(statement).rowcount == 1


def test_the_log_shows_what_happened_the_newest_last(data: Path) -> None:
    events = json.loads(run(data, "audit", "log", "--action", "key.*", "--json").output)
    assert [one["action"] for one in events] == ["key.created"] * 3 + ["key.revoked"]
    assert {one["actor"] for one in events} == {"cli"}
    (revoked,) = json.loads(run(data, "audit", "log", "--action", "key.revoked", "--since", "1h", "--json").output)
    assert revoked["target"] == events[-1]["target"]
    assert "key.revoked" in run(data, "audit", "log", "-n", "2", "--tenant", revoked["tenant"]).output
    assert json.loads(run(data, "audit", "log", "--until", "1h", "--json").output) == []
    wrong = run(data, "audit", "log", "--since", "yesterday")
    assert wrong.exit_code != 0
    assert str(wrong.exception).startswith("--since must be a moment such as 2026-01-31T12:00:00Z, or how long ago")


@pytest.mark.parametrize("action", ["key", "keys", "key.created.", "Key.*"])
def test_a_word_that_no_action_looks_like_is_not_answered_with_no_events(data: Path, action: str) -> None:
    wrong = run(data, "audit", "log", "--action", action)
    assert str(wrong.exception) == f"--action must look like key.created or key.*, not {action!r}"


def test_a_trail_that_nobody_touched_is_verified(data: Path) -> None:
    done = run(data, "audit", "verify")
    assert done.exit_code == 0, done.output
    assert "5 events of 4 tenants, 1 checkpoints: all as they were written" in done.output
    found = json.loads(run(data, "audit", "verify", "--json").output)
    assert (found["ok"], found["events"], found["findings"]) == (True, 5, [])


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE events SET action = 'key.changed' WHERE id = 2", "was changed"),
        ("DELETE FROM events WHERE id = 2", "is missing"),
        ("UPDATE events SET id = 99 WHERE id = 2", "was changed"),
        ("DELETE FROM checkpoints", "is missing"),
    ],
)
def test_a17_whatever_was_done_to_it_is_told_with_exit_code_1(data: Path, statement: str, finding: str) -> None:
    tampered(data, statement)
    done = run(data, "audit", "verify")
    assert done.exit_code == 1
    assert finding in done.output
    assert not json.loads(run(data, "audit", "verify", "--json").output)["ok"]


def test_an_export_is_verified_by_the_key_that_was_noted(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "trail.jsonl"
    assert run(data, "audit", "export", "-o", str(file)).exit_code == 0
    key = run(data, "audit", "key").output.strip()
    done = run(data, "audit", "verify", "--file", str(file), "--key", key)
    assert done.exit_code == 0, done.output
    assert run(data, "audit", "export").output == file.read_text()
    other = key.split("=")[0] + "=" + "0" * 64
    assert run(data, "audit", "verify", "--file", str(file), "--key", other).exit_code == 1
    file.write_text(file.read_text().replace("key.revoked", "key.forgiven"))
    assert run(data, "audit", "verify", "--file", str(file)).exit_code == 1
    again = run(data, "audit", "export", "-o", str(file))
    assert again.exit_code != 0
    assert "trail.jsonl" in str(again.exception)


def test_keys_are_shown_and_rotated(data: Path, tmp_path: Path) -> None:
    assert len(json.loads(run(data, "audit", "key", "--json").output)) == 1
    assert len(run(data, "audit", "key", "--rotate").output.split()) == 2
    asyncio.run(_checkpoint(data))
    assert run(data, "audit", "verify").exit_code == 0
    empty = tmp_path / "empty"
    assert isinstance(run(empty, "audit", "key").exception, NotFound)
