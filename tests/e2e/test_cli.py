"""The command line on a real server with real sandboxes: what a person or a script types, and what comes back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.e2e.machine import assert_nothing_left, running, until
from tests.e2e.server import Server
from tests.e2e.terminal import Terminal


def test_a_pipe_goes_through_run_byte_by_byte(server: Server) -> None:
    data = os.urandom(3_000_001)
    done = server.cli("run", "--rm", "--", "cat", stdin=data)
    assert done.stdout == data
    assert done.stderr == b""
    assert server.sessions("running") == []


def test_all_that_a_command_writes_at_once_comes_out_of_run(server: Server) -> None:
    assert server.cli("run", "--rm", "--", "seq", "500000").stdout.splitlines() == [
        str(number).encode() for number in range(1, 500_001)
    ]
    said = json.loads(server.cli("run", "--rm", "--json", "--", "head", "-c", "3000000", "/dev/zero").stdout)
    assert (len(said["stdout"]), said["truncated"]) == (3_000_000, False)


def test_exit_codes_and_signals_are_the_commands(server: Server) -> None:
    sandbox = server.create()
    assert server.cli("exec", sandbox, "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7).stderr == b"err\n"
    server.cli("exec", sandbox, "sh", "-c", "kill -9 $$", code=137)
    assert b"nowhere" in server.cli("exec", sandbox, "nowhere", code=127).stderr
    server.cli("run", "--", "sh", "-c", "kill -TERM $$", code=143)
    assert server.sessions()[0]["signal"] == signal.SIGTERM


def test_a_long_command_line_runs_and_one_beyond_any_head_is_told_so(server: Server) -> None:
    sandbox = server.create()
    assert server.cli("exec", sandbox, "--", "sh", "-c", f"echo ran # {'x' * 50_000}").stdout == b"ran\n"
    assert b"larger than 65536 bytes" in server.cli("exec", sandbox, "echo", "x" * 70_000, code=125).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_command(server: Server, number: signal.Signals) -> None:
    line = "trap 'echo caught; exit 5' INT TERM; echo ready; while :; do sleep 0.05; done"
    command = server.spawn_cli("run", "--", "sh", "-c", line)
    assert command.stdout is not None
    assert command.stdout.readline() == b"ready\n"
    command.send_signal(number)
    stdout, _ = command.communicate(timeout=20)
    assert (stdout, command.returncode) == (b"caught\n", 5)


def test_output_into_a_pipe_that_closes_ends_the_command(server: Server) -> None:
    sandbox = server.create()
    command = server.spawn_cli("exec", sandbox, "yes", stdin=subprocess.DEVNULL)
    head = subprocess.run(["head", "-c", "100"], stdin=command.stdout, capture_output=True, timeout=20)
    assert head.stdout == b"y\n" * 50
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    command.stderr.close()
    assert command.wait(20) == 128 + signal.SIGPIPE
    until(lambda: all(not one["running"] for one in processes(server, sandbox)), what="yes has ended")


def test_cp_of_files_keeps_bytes_and_modes_both_ways(server: Server, tmp_path: Path) -> None:
    sandbox = server.create(resources={"storageMB": 200})
    large = tmp_path / "large"
    with open(large, "wb") as file:
        for _ in range(96):
            file.write(os.urandom(2**20))
    large.chmod(0o751)
    server.cli("cp", str(large), f"{sandbox}:/tmp/deep/er/")
    told = server.sh(sandbox, "cd /tmp/deep/er; stat -c '%a %U %s' large; sha256sum large")
    assert told.split()[:3] == ["751", "user", str(96 * 2**20)]
    assert told.split()[3] == digest(large)
    server.cli("cp", f"{sandbox}:/tmp/deep/er/large", str(tmp_path / "back"))
    assert digest(tmp_path / "back") == digest(large)
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o751
    empty = tmp_path / "empty"
    empty.touch()
    server.cli("cp", str(empty), f"{sandbox}:/tmp/empty")
    assert server.sh(sandbox, "stat -c %s /tmp/empty") == "0\n"
    assert b"no such file" in server.cli("cp", f"{sandbox}:/tmp/nowhere", str(tmp_path), code=1).stderr.lower()


def test_cp_of_folders_keeps_links_modes_and_odd_names_both_ways(server: Server, tmp_path: Path) -> None:
    sandbox = server.create()
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / "script").write_text("#!/bin/sh\necho ran\n")
    (tree / "sub" / "script").chmod(0o755)
    (tree / "sub").chmod(0o750)
    (tree / "link").symlink_to("sub/script")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "spaces and 'quotes' ünï").write_text("odd")
    with open(os.fsencode(tree) + b"/raw-\xff", "wb") as raw:
        raw.write(b"raw")
    server.cli("cp", str(tree), f"{sandbox}:/home/user/")
    assert server.sh(sandbox, "cd /home/user/tree && ./link && readlink dangling && stat -c %a sub") == (
        "ran\nnowhere\n750\n"
    )
    server.sh(sandbox, "ln -s /etc/passwd /home/user/tree/outside; mkfifo /home/user/tree/fifo")
    done = server.cli("cp", f"{sandbox}:/home/user/tree", str(tmp_path / "copy"))
    assert b"2 links and special files were left out" in done.stderr
    assert listing(tmp_path / "copy") == listing(tree)
    server.cli("cp", f"{sandbox}:/home/user/tree/.", str(tmp_path / "copy"))
    assert listing(tmp_path / "copy") == listing(tree)


def test_logs_follow_until_the_end_and_stay(server: Server) -> None:
    sandbox = server.create(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done; echo err >&2"])
    assert server.cli("logs", "-f", sandbox).stdout == b"1\n2\n3\nerr\n"
    until(lambda: server.session(sandbox)["status"] == "stopped")
    assert server.cli("logs", sandbox).stdout == b"1\n2\n3\nerr\n"
    assert server.cli("logs", "--offset", "4", sandbox).stdout == b"3\nerr\n"


def test_ps_json_shows_what_live_sandboxes_use(server: Server) -> None:
    sandbox = server.create(["sh", "-c", "while :; do :; done"])
    server.cli("exec", sandbox, "--", "sh", "-c", "cat | wc -c; head -c 5000 /dev/zero", stdin=b"x" * 1000)
    server.exec(sandbox, "python3", "-c", "x = bytearray(20_000_000)")

    def used() -> dict[str, float]:
        (shown,) = json.loads(server.cli("ps", "--json").stdout)
        assert shown["id"] == sandbox
        return shown["usage"]

    until(lambda: used()["cpuMs"] > 200, what="cpu time is counted")
    usage = used()
    assert usage["memoryPeakBytes"] > 20_000_000
    assert usage["durationMs"] > 200
    assert usage["bytesIn"] == 1000
    assert usage["bytesOut"] >= 5005
    assert usage["execCount"] == 2
    row = server.cli("ps").stdout.decode().splitlines()[1]
    assert sandbox in row
    assert " 0B " not in row


def test_run_with_a_published_port_is_reachable(server: Server) -> None:
    command = server.spawn_cli("run", "--rm", "--publish", "8000", "--", "python3", "-m", "http.server", "8000")
    assert command.stderr is not None
    told = command.stderr.readline().decode()
    url = told.split()[-1]
    assert url.startswith("http://127.0.0.1:")

    def fetched() -> bool:
        try:
            return "Directory listing" in httpx2.get(url, timeout=5).text
        except httpx2.HTTPError:
            return False

    until(fetched, what=url)
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=20)
    until(lambda: not server.sessions("running"))
    assert not fetched()


def test_detached_runs_are_attached_to_and_named(server: Server) -> None:
    sandbox = server.cli("run", "-d", "--name", "box", "--", "sh", "-c", "read a; echo got $a; exit 3").stdout.decode()
    sandbox = sandbox.strip()
    assert json.loads(server.cli("ps", "--json").stdout)[0]["name"] == "box"
    assert server.cli("attach", "box", stdin=b"word\n", code=3).stdout == b"got word\n"
    until(lambda: server.session(sandbox)["status"] == "stopped")
    assert server.cli("rm", "box").stdout.decode().strip() == sandbox
    assert sandbox not in {one["id"] for one in server.sessions()}


def test_env_workdir_limits_and_timeout_reach_the_sandbox(server: Server) -> None:
    words = ["--env", "A=b c", "--workdir", "/tmp/made", "--memory", "64m", "--cpus", "0.5"]
    line = "echo $A $PWD; python3 -c 'bytearray(200_000_000)'; echo $?"
    told = server.cli("run", *words, "--", "sh", "-c", line).stdout.decode()
    assert told.split("\n")[:2] == ["b c /tmp/made", "137"]
    server.cli("run", "--timeout", "300ms", "--", "sleep", "100", code=None)
    assert server.sessions()[0]["reason"] == "timeout"


def test_stop_lets_it_end_and_kill_does_not(server: Server) -> None:
    patient = ["sh", "-c", "trap 'echo ended well; exit 0' TERM; while :; do sleep 0.05; done"]
    one, other = server.create(patient), server.create(patient)
    until(lambda: processes(server, one) and processes(server, other))
    server.cli("stop", one)
    server.cli("kill", other)
    assert server.session(one)["exitCode"] == 0
    assert server.session(other)["status"] == "killed"


def test_ctrl_c_and_leaving_a_terminal(server: Server) -> None:
    sandbox = server.create()
    with Terminal(server, "shell", sandbox) as terminal:
        terminal.expect(r"\$ ")
        terminal.type("sh -c 'echo be''gun; exec sleep 100'\n")
        terminal.expect("begun\r\n")  # before that, Ctrl-C would be for the shell itself
        terminal.type("\x03")
        terminal.expect(r"\^C.*\$ ")
        terminal.type("echo code $?\n")
        terminal.expect("code 130\r")
        terminal.type("\n~.")
        told = terminal.expect(r"it goes on: atoll attach (\S+) --process (p\d+)\r")
        assert terminal.ended() == 0
    assert told[1].decode() == sandbox
    (shell,) = [one for one in processes(server, sandbox) if one["running"]]
    assert shell["id"] == told[2].decode()
    with Terminal(server, "attach", sandbox, "--process", shell["id"]) as terminal:
        terminal.expect("code 130")
        terminal.type("exit 9\n")
        assert terminal.ended() == 9


def test_keys_with_the_server_running(server: Server) -> None:
    key_id, text = server.new_key("--scope", "read")
    with server.client(text) as client:
        assert client.get("/v1/sessions").status_code == 200
        assert client.post("/v1/sessions", json={"image": "host"}).status_code == 403
        shown = server.cli("keys", "list", "--json").stdout.decode()
        assert key_id in shown
        assert text not in shown
        server.cli("keys", "revoke", key_id)
        until(lambda: client.get("/v1/sessions").status_code == 401, within_s=5)
    assert key_id not in server.cli("keys", "list", "--json").stdout.decode()
    expired = server.new_key("--expires", "1s")[1]
    with server.client(expired) as client:
        until(lambda: client.get("/v1/sessions").status_code == 401, within_s=5)


def test_keys_without_a_server_and_an_address_that_others_reach(new_server: Callable[..., Server]) -> None:
    server = new_server()
    where = ["up", "--host", "0.0.0.0", "--port", str(server.port)]
    refused = server.cli(*where, code=1).stderr.decode()
    assert "atoll keys create" in refused
    assert "Traceback" not in refused
    assert not (server.data / "owner.key").exists()
    key_id, text = server.new_key("--kind", "owner")
    said = json.loads(server.cli(*where, "--detach", "--json").stdout)
    server.pid = said["pid"]
    assert said["api_key_file"] is None
    assert not (server.data / "owner.key").exists()
    with server.client(text) as client:
        assert client.get("/v1/sessions").status_code == 200
    server.down()
    assert not (server.data / "owner.key").exists()
    server.cli("keys", "revoke", key_id)
    server.cli(*where, code=1)


def test_down_keep_sandboxes_and_up_again_adopts(new_server: Callable[..., Server]) -> None:
    server = new_server().start(detach=True)
    sandbox = server.create(["sh", "-c", "while :; do sleep 0.1; done"])
    server.sh(sandbox, "echo kept > /tmp/file")
    first = server.pid
    assert server.down("--keep-sandboxes") == {"stopped": first, "sandboxes": 0}
    assert not running(first)
    assert server.machine.sandbox_folders() == {sandbox}
    assert server.machine.node()
    assert b"is not running: `atoll up` starts it" in server.cli("ps", code=1).stderr
    server.start(detach=True)
    assert server.sh(sandbox, "cat /tmp/file") == "kept\n"
    server.down("--keep-sandboxes")
    # Without a server too, `down` ends what is left.
    assert server.down() == {"stopped": None, "sandboxes": 1}
    assert_nothing_left(server.machine)
    server.start(detach=True)
    assert server.session(sandbox)["status"] == "killed"


def processes(server: Server, sandbox: str) -> list[dict[str, object]]:
    return server.http.get(f"/v1/sessions/{sandbox}/processes").json()["processes"]


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What is below a folder: for each name its mode and content, for a link its target."""
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            place = os.path.relpath(path, os.fsencode(root))
            if os.path.islink(path):
                found[place] = ("link", os.readlink(path))
            elif os.path.isdir(path):
                found[place] = ("folder", os.stat(path).st_mode & 0o777)
            else:
                found[place] = ("file", os.stat(path).st_mode & 0o777, Path(os.fsdecode(path)).read_bytes())
    return found
