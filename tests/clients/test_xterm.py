"""xterm.js, as it is published, drives a terminal: keys, colours, sizes, and a connection that comes back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.clients.installed import npm_clients
from tests.e2e.machine import assert_nothing_left
from tests.e2e.server import Server, environment

DRIVE = Path(__file__).parent / "xterm" / "drive.cjs"
DRIVE_S = 90
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root"),
]


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    server = Server(tmp_path / "data", "[sandboxes]\nspares = 0\n")
    server.start()
    yield server
    server.down()
    assert_nothing_left(server.machine)


def test_xterm_with_its_attach_addon_drives_a_terminal(server: Server) -> None:
    clients = npm_clients()
    made = server.http.post("/sandboxes", json={"sandbox_config": {"network": "none"}}).json()["sandbox_id"]
    token = server.http.post(f"/sandboxes/{made}/terminal/token").json()["token"]
    drive = subprocess.run(
        ["node", str(DRIVE), str(clients), server.url.replace("http", "ws", 1), made],
        env=environment({"TOKEN": token}),
        capture_output=True,
        text=True,
        timeout=DRIVE_S,
    )
    assert drive.returncode == 0, drive.stderr
    red = 1
    assert json.loads(drive.stdout) == {
        "kinds": ["text"],  # what the addon sends for keys
        "colour": red,
        "colour_again": red,
        "closed": [1000, "exit 5"],
    }
