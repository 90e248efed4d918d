"""C09: a second server on the same data folder refuses and says why; the first does not notice."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import needs_root
from tests.e2e.server import Server, free_port

pytestmark = [pytest.mark.root, needs_root]


@pytest.mark.parametrize("words", [[], ["--detach"]], ids=["foreground", "detached"])
def test_c09_a_second_server_refuses(mortal: Server, words: list[str]) -> None:
    server = mortal
    sandbox, node = server.create(["sleep", "1000"]), server.machine.node()
    said = server.cli("up", "--port", str(free_port()), *words, code=1).stderr.decode()
    assert str(server.data) in said
    assert str(server.pid) in said
    assert "Traceback" not in said
    assert server.machine.node() == node
    assert server.sh(sandbox, "echo lives") == "lives\n"
    assert server.cli("ps", "-q").stdout.decode().split() == [sandbox], "the note leads to another server"


def test_c09_a_taken_port_is_said_and_leaves_the_folder_free(mortal: Server, new_server_of_mine: Server) -> None:
    other = new_server_of_mine
    done = other.cli("up", "--port", str(mortal.port), code=1)
    assert f"127.0.0.1:{mortal.port}" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    other.start()
    assert other.sessions() == []


@pytest.fixture
def new_server_of_mine(tmp_path):  # type: ignore[no-untyped-def]
    server = Server(tmp_path / "other")
    yield server
    server.down()
    assert not server.machine.traces()
