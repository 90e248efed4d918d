"""The life of a server as its operator sees it: up, down, again, and what is left on the machine."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e.machine import assert_nothing_left, running, until
from tests.e2e.server import Server

NewServer = Callable[..., Server]


def test_up_leaves_marks_that_down_takes_away(new_server: NewServer) -> None:
    """Also a check of the oracle: what it looks for is there while the server lives."""
    server = new_server().start(detach=True)
    sandbox = server.create(["sleep", "1000"], network="exposed", ports=[{"container": 80}])
    large = server.create(resources={"storageMB": 300})
    machine = server.machine
    assert machine.sandbox_folders() == {sandbox, large}
    assert running(machine.node())
    assert {server.pid, machine.node()} <= set(machine.processes())
    for traces in (machine.cgroups(), machine.links(), machine.tables(), machine.mounts(), machine.claims()):
        assert traces
    assert machine.loops()
    said = server.down()
    assert said["sandboxes"] == 2
    assert_nothing_left(machine)


def test_what_outlives_the_server_keeps_no_descriptor_of_its_caller(mortal: Server) -> None:
    """Else a pipe into which somebody started the server would never end, after the server has."""
    mortal.kill()
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    node = mortal.machine.node()
    os.kill(node, signal.SIGKILL)
    until(lambda: not mortal.machine.node())
    mortal.start(pass_fds=(writer,))
    os.close(writer)
    sandbox = mortal.create(["sleep", "1000"])
    assert mortal.machine.node() not in (0, node)
    mortal.kill()
    ready, _, _ = select.select([reader], [], [], 5)
    assert ready, "somebody holds the pipe open"
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert mortal.machine.sandbox_folders() == {sandbox}


UNREACHABLE = {
    "ATOLL_BLOBS__URL": "s3://nowhere",
    "ATOLL_BLOBS__ENDPOINT": "http://127.0.0.1:1",
    "ATOLL_DATABASE__URL": "postgresql://nobody@127.0.0.1:1/none",
}


def test_down_needs_no_database_no_store_and_no_key_to_end_what_a_dead_server_left(new_server: NewServer) -> None:
    server = new_server().start()
    server.http.post("/v1/workspaces", json={"name": "kept"}).raise_for_status()
    sandbox = server.create(["sleep", "1000"], workspace="kept")
    server.sh(sandbox, "echo last > /workspace/file")
    machine = server.machine
    server.kill()
    os.kill(machine.node(), signal.SIGKILL)
    assert machine.loops() and machine.processes() and machine.cgroups()
    key = server.data / "master.key"
    key.rename(key.with_suffix(".away"))
    done = server.cli("down", "--data", str(server.data), "--json", env=UNREACHABLE)
    said = json.loads(done.stdout)
    assert (said["stopped"], done.stderr) == (None, b"")
    assert said["sandboxes"] >= 1  # the one that proves the isolation after a start may be there still
    assert_nothing_left(machine)
    key.with_suffix(".away").rename(key)
    server.start()
    until(lambda: server.session(sandbox)["status"] == "killed")
    assert server.session(sandbox)["reason"] == "killed"
    assert server.session(sandbox)["usage"]["durationMs"] > 0
    until(lambda: server.http.get("/v1/workspaces/kept/file", params={"path": "file"}).text == "last\n", 20)


def test_down_ends_sandboxes_whatever_the_settings_say(new_server: NewServer) -> None:
    server = new_server().start()
    server.create(["sleep", "1000"])
    server.kill()
    (server.data / "atoll.toml").write_text("[server]\nprot = 1\n")
    done = server.cli("down", "--data", str(server.data))
    assert re.search(rb"; (1 sandbox|2 sandboxes) ended", done.stdout)  # one may be proving the isolation still
    assert b"server.prot" in done.stderr and done.stderr.count(b"\n") == 1
    assert_nothing_left(server.machine)


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.0, 1.5])
def test_down_ends_a_server_that_is_just_starting(new_server: NewServer, after_s: float) -> None:
    server = new_server()
    starting = server.spawn_cli("up", "--data", str(server.data), "--port", "0")
    until(lambda: (server.data / "server.lock").exists(), 30)
    time.sleep(after_s)
    server.cli("down", "--data", str(server.data))
    starting.communicate(timeout=30)
    assert_nothing_left(server.machine)


def test_ctrl_c_while_a_server_starts_on_its_own_says_that_it_goes_on(new_server: NewServer) -> None:
    server = new_server()
    starting = server.spawn_cli("up", "--data", str(server.data), "--port", "0", "--detach")
    until(lambda: (server.data / "server.lock").exists(), 30)
    starting.send_signal(signal.SIGINT)
    _, said = starting.communicate(timeout=30)
    assert starting.returncode == 1 and b"goes on starting" in said
    assert str(server.data).encode() in said
