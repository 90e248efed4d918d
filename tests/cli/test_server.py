from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.sdk.local_server import LocalServer, boot_id, read_note, start_ticks, write_note
from tests.cli.conftest import ATOLL, Atoll

Alone = Callable[..., Atoll]


@pytest.fixture
def atoll(alone: Alone) -> Atoll:
    return alone(ATOLL_RUNTIME="fake")


def up(atoll: Atoll, *words: str) -> dict[str, object]:
    done = atoll("up", "--detach", "--port", "0", "--json", *words, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    said: dict[str, object] = json.loads(done.stdout)
    return said


def test_detached_it_is_ready_when_it_says_so_and_clients_find_it(atoll: Atoll, tmp_path: Path) -> None:
    said = up(atoll)
    assert set(said) == {"url", "pid", "api_key_file"}
    key_file = Path(str(said["api_key_file"]))
    assert key_file.read_text().startswith("sk_")
    assert key_file.stat().st_mode & 0o777 == 0o600
    note = read_note(tmp_path / "data")
    assert note is not None
    assert (note.pid, note.url, note.alive) == (said["pid"], said["url"], True)
    assert atoll("run", "--rm", "--", "echo", "found").stdout == "found\n"
    down = json.loads(atoll("down", "--json").stdout)
    assert down == {"stopped": said["pid"], "sandboxes": 0}
    assert start_ticks(int(str(said["pid"]))) is None
    assert read_note(tmp_path / "data") is None


def test_detached_it_keeps_none_of_our_descriptors_and_no_terminal(atoll: Atoll) -> None:
    reader, writer = os.pipe()
    words = [*ATOLL, "up", "--detach", "--port", "0", "--json"]
    done = subprocess.run(
        words, env=atoll.environment, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(writer,), timeout=60
    )  # returns at all: nobody else holds its stdout
    os.close(writer)
    assert os.read(reader, 1) == b""  # nobody holds the other end
    os.close(reader)
    pid = json.loads(done.stdout)["pid"]
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    parent, session, terminal = int(fields[1]), int(fields[3]), int(fields[4])
    assert terminal == 0
    assert session not in (pid, os.getsid(0))
    assert parent != os.getpid()
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1").endswith("/server.log")


def test_a_second_server_on_the_same_folder_says_why_it_cannot(atoll: Atoll) -> None:
    said = up(atoll)
    port = str(said["url"]).rpartition(":")[2]
    for words in (("up", "--detach", "--port", "0"), ("up", "--port", "0"), ("up", "--port", port)):
        done = atoll(*words, timeout=60)
        assert done.returncode == 1
        assert f"in use by another atoll server (pid {said['pid']})" in done.stderr
        assert done.stderr.count("\n") == 1
    assert atoll("ps").returncode == 0


def test_a_port_that_is_taken_is_said(atoll: Atoll, alone: Alone, tmp_path: Path) -> None:
    port = str(up(atoll)["url"]).rpartition(":")[2]
    other = tmp_path / "other"
    done = atoll("up", "--detach", "--port", port, "--data", str(other), timeout=60)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert read_note(other) is None


def test_a_wrong_setting_is_named(alone: Alone) -> None:
    done = alone(ATOLL_RUNTIME="fake", ATOLL_SERVR__PORT="1")("up", "--detach", timeout=60)
    assert done.returncode == 2
    assert "ATOLL_SERVR__PORT" in done.stderr


def test_elsewhere_than_on_loopback_it_wants_a_key_first(atoll: Atoll) -> None:
    done = atoll("up", "--detach", "--host", "127.0.0.2", "--port", "0", timeout=60)
    if done.returncode == 0:  # all of 127/8 is loopback
        atoll("down", timeout=60)
    done = atoll("up", "--detach", "--host", "0.0.0.0", "--port", "0", "--data", atoll.environment["ATOLL_DATA"] + "2")
    assert done.returncode == 1
    assert "atoll keys create" in done.stderr


def test_in_the_foreground_it_says_where_the_key_is_and_stops_with_ctrl_c(atoll: Atoll, tmp_path: Path) -> None:
    for _ in range(2):
        terminal = atoll.on_terminal("up", "--port", "0", size=(120, 30))
        terminal.expect("Atoll is ready")
        terminal.expect("atoll run")
        terminal.expect("Ctrl-C")
        key = (tmp_path / "data" / "owner.key").read_bytes().strip()
        assert b"owner.key" in terminal.screen and key not in terminal.screen
        terminal.type(b"\x03")
        assert terminal.wait() == 0
        assert b"Traceback" not in terminal.screen


def test_in_the_foreground_json_is_one_line(atoll: Atoll) -> None:
    running = atoll.start("up", "--port", "0", "--json")
    assert running.stdout
    said = json.loads(running.stdout.readline())
    assert said["pid"] == running.pid
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=30)
    assert (out, running.returncode) == (b"", 0)


def test_down_finds_a_server_without_its_note_and_none_without_a_server(atoll: Atoll, tmp_path: Path) -> None:
    said = up(atoll)
    (tmp_path / "data" / "server.json").unlink()
    assert json.loads(atoll("down", "--json").stdout)["stopped"] == said["pid"]
    assert json.loads(atoll("down", "--json").stdout)["stopped"] is None
    nowhere = tmp_path / "nowhere"
    done = atoll("down", "--data", str(nowhere))
    assert done.returncode == 0
    assert "no server ran" in done.stdout
    assert not nowhere.exists()


def test_a_folder_that_commands_do_not_look_in_is_named_in_the_hints(atoll: Atoll, tmp_path: Path) -> None:
    other = tmp_path / "another one"
    assert f"export ATOLL_DATA='{other}'" in atoll("up", "-d", "--port", "0", "--data", str(other)).stdout
    again = atoll("up", "-d", "--port", "0", "--data", str(other))
    assert again.returncode == 1 and f"`atoll down --data '{other}'`" in again.stderr
    assert "has stopped" in atoll("down", "--data", str(other)).stdout
    assert "ATOLL_DATA" not in atoll("up", "-d", "--port", "0").stdout
    assert "has stopped" in atoll("down").stdout


@pytest.mark.parametrize("command", ["up", "down"])
def test_an_empty_folder_name_is_refused(atoll: Atoll, command: str) -> None:
    done = atoll(command, "--data", "")
    assert done.returncode == 2 and "--data" in done.stderr


def test_a_note_of_an_earlier_life_is_not_believed(atoll: Atoll, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    for stale in (
        LocalServer(os.getpid(), "http://127.0.0.1:1", 0.0, boot_id(), ticks + 1),
        LocalServer(os.getpid(), "http://127.0.0.1:1", 0.0, "an earlier boot", ticks),
    ):
        write_note(data, stale)
        assert not stale.alive
        assert json.loads(atoll("down", "--json").stdout)["stopped"] is None
    (data / "server.json").write_text("{")
    assert read_note(data) is None


def test_keys_are_made_listed_and_revoked_while_the_server_runs(atoll: Atoll) -> None:
    up(atoll)
    made = json.loads(atoll("keys", "create", "--name", "ci", "--json").stdout)
    assert set(made) == {"id", "key"}
    other = Atoll(atoll.environment | {"ATOLL_API_KEY": made["key"]})
    assert other("run", "--rm", "--", "echo", "mine").stdout == "mine\n"
    listed = atoll("keys", "list", "--json").stdout
    assert made["key"] not in listed
    assert [key["name"] for key in json.loads(listed)] == ["owner", "ci"]
    assert atoll("keys", "revoke", made["id"]).stdout == made["id"] + "\n"
    until = time.monotonic() + 10
    while (done := other("ps")).returncode == 0:
        assert time.monotonic() < until
    assert "API key" in done.stderr
    assert "revoked" in atoll("keys", "list", "-a").stdout


def test_keys_can_be_made_before_the_first_start(atoll: Atoll, tmp_path: Path) -> None:
    done = atoll("keys", "create", "--name", "first", "--expires", "30d", "--scope", "read")
    assert done.stdout.startswith("sk_")
    (key,) = json.loads(atoll("keys", "list", "--json").stdout)
    assert key["scopes"] == ["read"]
    assert key["expires_at"] is not None
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert atoll("keys", "create", "--name", "x", "--scope", "everything").returncode == 2
    done = atoll("keys", "create", "--name", "x", "--expires", "30")
    assert (done.returncode, done.stderr) == (2, "atoll: --expires must look like 30s, 5m, 2h or 7d, not '30'\n")
    assert atoll("keys", "revoke", "key_000000000000").returncode == 1


def test_a_copy_of_the_database_is_refused_while_the_server_runs(atoll: Atoll) -> None:
    up(atoll)
    done = atoll("db", "copy", "--to", "postgresql://nobody@127.0.0.1:1/none")
    assert done.returncode == 1
    assert "in use by another atoll server" in done.stderr
    assert atoll("db", "copy", "--to", "mysql://x").returncode == 2


def test_a_server_that_dies_at_its_start_shows_the_end_of_its_log(atoll: Atoll, tmp_path: Path) -> None:
    program = "import os\nfrom atoll.cli import detached\ndetached._PROGRAM = 'import sys; sys.exit(\"no luck\")'\n"
    program += "from atoll.cli.main import main\nmain()"
    words = [sys.executable, "-c", program, "up", "--detach", "--port", "0"]
    done = subprocess.run(words, env=atoll.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no luck" in done.stderr
