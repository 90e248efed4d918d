"""One real server for all the end-to-end tests, checked for leftovers after each of them and at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.e2e.machine import assert_nothing_left, until
from tests.e2e.server import Server

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root")
# The reconciler's own times are half a minute together: enough for people, too much for tests.
QUICK = """
[sandboxes]
reconcile_s = 0.5
orphan_grace_s = 1.0
spares = 4
"""
CRASH_AT = "crash-at"  # beside the data of a mortal server: while it is there, the name of the point that kills it
FAULTS = ("Traceback", '"level": "error"', '"level":"error"', "background.failed", "Warning", "never awaited")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(needs_root)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    server = Server(tmp_path_factory.mktemp("e2e") / "data")
    server.start()
    yield server
    server.down()
    assert_nothing_left(server.machine)


@pytest.fixture
def server(shared_server: Server) -> Generator[Server]:
    """The shared server; after the test it must be the same process, have no sandbox left and no fault in its log."""
    seen, pid = len(shared_server.log()), shared_server.pid
    yield shared_server
    tidy(shared_server)
    assert shared_server.pid == pid, "the test left another server behind"
    assert_no_faults(shared_server, seen)


@pytest.fixture(scope="module")
def _mortal(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    folder = tmp_path_factory.mktemp("mortal")
    server = Server(folder / "data", QUICK, env={"ATOLL_CRASH_AT": f"@{folder / CRASH_AT}"})
    server.start()
    yield server
    server.down()
    assert_nothing_left(server.machine)


@pytest.fixture
def mortal(_mortal: Server) -> Generator[Server]:
    """A server that the module's tests may kill and start again; after each it runs and has no sandbox left."""
    if not _mortal.pid:
        _mortal.start()
    seen = len(_mortal.log())
    yield _mortal
    if not _mortal.pid:
        _mortal.start()
    tidy(_mortal)
    assert_no_faults(_mortal, seen)


@pytest.fixture
def new_server(tmp_path: Path) -> Generator[Callable[..., Server]]:
    """Makes servers of the test's own, not started; each is taken down at the end and must leave nothing."""
    made: list[Server] = []

    def make(settings: str = "") -> Server:
        made.append(Server(tmp_path / f"data{len(made)}", settings))
        return made[-1]

    yield make
    for server in made:
        server.down()
        assert_nothing_left(server.machine)


def tidy(server: Server) -> None:
    """Kill what lives; then nothing of it may be left."""
    server.close_streams()
    for session in server.sessions("running"):
        server.http.delete(f"/v1/sessions/{session['id']}")
    until(lambda: not server.machine.sandbox_folders(), what="sandboxes gone")


def assert_no_faults(server: Server, since: int = 0) -> None:
    bad = [line for line in server.log()[since:].splitlines() if any(fault in line for fault in FAULTS)]
    assert not bad, "\n".join(bad[:20])
    assert not server.node_log(), server.node_log()[-2000:]
