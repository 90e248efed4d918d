from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import Terminal
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.stand_in import KEY, StandIn

ATOLL = (sys.executable, "-m", "atoll.cli.main")


class Atoll:
    """The command line, as a program of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.started: list[subprocess.Popen[bytes]] = []
        self.terminals: list[Terminal] = []

    def __call__(self, *words: str, stdin: str | bytes = b"", timeout: float = 30) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*ATOLL, *words], input=data, capture_output=True, env=self.environment, timeout=timeout)
        out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def start(self, *words: str, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Without waiting for its end; stdout and stderr are pipes."""
        pipe = subprocess.PIPE
        process = subprocess.Popen([*ATOLL, *words], env=self.environment, stdin=stdin, stdout=pipe, stderr=pipe)
        self.started.append(process)
        return process

    def close(self) -> None:
        for terminal in self.terminals:
            terminal.close()
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def on_terminal(self, *words: str, size: tuple[int, int] = (80, 24)) -> Terminal:
        terminal = Terminal([*ATOLL, *words], self.environment, size)
        self.terminals.append(terminal)
        return terminal


def _environment(**ours: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
    source = str(Path(__file__).parents[2] / "src")
    return kept | {"PYTHONPATH": source, "TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"} | ours


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    root = tmp_path / "sandboxes"
    root.mkdir()
    stand_in = StandIn(root)
    yield stand_in
    stand_in.close()


@pytest.fixture
def proxy(server: StandIn) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def atoll(server: StandIn, tmp_path: Path) -> Iterator[Atoll]:
    """The command line with a server to speak to."""
    atoll = Atoll(_environment(ATOLL_URL=server.url, ATOLL_API_KEY=KEY, ATOLL_DATA=str(tmp_path / "data")))
    yield atoll
    atoll.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Callable[..., Atoll]]:
    """The command line with a data folder and no server."""
    made: list[Atoll] = []

    def make(**ours: str) -> Atoll:
        made.append(Atoll(_environment(ATOLL_DATA=str(tmp_path / "data"), **ours)))
        return made[-1]

    yield make
    for atoll in made:
        atoll.close()
        if (tmp_path / "data" / "server.lock").exists():
            atoll("down", timeout=60)
