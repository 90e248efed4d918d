"""The life of a server as its operator sees it: up, down, again, and what is left on the machine."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.machine import assert_nothing_left, running
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
