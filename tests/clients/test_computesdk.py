"""The published clients of ComputeSDK, unmodified, on a real server with real sandboxes: tours of all that they can do.

Each tour is a program of its own in computesdk/; it tells which steps went wrong, and which methods it never called.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.installed import npm_clients, python_client
from tests.e2e.machine import assert_nothing_left
from tests.e2e.server import Server, environment

TOURS = Path(__file__).parent / "computesdk"
TOUR_S = 110
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the full isolation tier needs root"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """One for all tours."""
    server = Server(tmp_path_factory.mktemp("clients") / "data")
    server.start()
    yield server
    server.down()
    assert_nothing_left(server.machine)


@dataclass(frozen=True)
class Outcome:
    wrong: dict[str, str]
    uncalled: set[str]
    steps: int


def toured(server: Server, command: list[str], **env: str) -> Outcome:
    """Run a tour to its end."""
    more = {"GATEWAY": server.url, "KEY": server.key, "TOUR_S": str(TOUR_S - 20)} | env
    ran = subprocess.run(
        command, env=environment(more), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOUR_S
    )
    assert ran.stdout.strip(), ran.stderr[-2000:]
    told: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    wrong = {one["name"]: one["error"] for one in told["results"] if not one["ok"]}
    return Outcome(wrong, set(told["uncalled"]), len(told["results"]))


def test_npm_computesdk_2_5_4_does_all_that_it_can_do(server: Server) -> None:
    folder = npm_clients()
    outcome = toured(server, ["node", str(TOURS / "tour_2.cjs")], NODE_PATH=str(folder / "node_modules"))
    assert not outcome.wrong, _told(outcome)
    assert outcome.uncalled == set()


def test_npm_computesdk_1_10_3_does_all_that_it_can_do(server: Server) -> None:
    folder = npm_clients()
    outcome = toured(server, ["node", str(TOURS / "tour_1.cjs")], NODE_PATH=str(folder / "node_modules"))
    assert not outcome.wrong, _told(outcome)
    assert outcome.uncalled == set()


def test_pypi_computesdk_0_1_1_does_all_that_it_can_do(server: Server) -> None:
    python = python_client("computesdk")
    outcome = toured(server, [str(python), str(TOURS / "tour.py")])
    assert not outcome.wrong, _told(outcome)
    assert outcome.uncalled == set()


def _told(outcome: Outcome) -> str:
    return "\n".join(f"{name}:\n{error}" for name, error in outcome.wrong.items())
