"""A server of our own for a benchmark or a demo: private data folder, free port, taken down with all it had."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ATOLL = str(Path(sys.executable).parent / "atoll")
UP_TIMEOUT_S = 60
DOWN_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; the SDK finds it through ATOLL_URL and ATOLL_API_KEY, which are set while it runs."""

    url: str
    pid: int
    api_key: str
    data: Path


@contextmanager
def server() -> Iterator[Server]:
    """`atoll up --detach` on a temporary folder; `atoll down` and no folder afterwards, after a SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    data = Path(tempfile.mkdtemp(prefix="atoll-data-"))
    names = ("ATOLL_URL", "ATOLL_API_KEY", "ATOLL_DATA")
    before = {name: os.environ.pop(name, None) for name in names}
    try:
        argv = [ATOLL, "up", "--detach", "--host", "127.0.0.1", "--port", str(free_port()), "--data", str(data)]
        note = json.loads(_start([*argv, "--json"]))
        key = Path(note["api_key_file"]).read_text().strip()
        os.environ |= {"ATOLL_URL": note["url"], "ATOLL_API_KEY": key, "ATOLL_DATA": str(data)}
        yield Server(note["url"], note["pid"], key, data)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        take_down(data)


def _start(argv: list[str]) -> str:
    """What `up` says. The terminal's Ctrl-C does not reach it: one that is half up could not be taken down."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, start_new_session=True, text=True, stdout=pipe, stderr=pipe) as starting:
        try:
            said, errors = starting.communicate(timeout=UP_TIMEOUT_S)
        except BaseException:
            starting.wait(UP_TIMEOUT_S)
            raise
    if starting.returncode:
        raise RuntimeError(f"the server did not start:\n{said}{errors}")
    return said


def take_down(data: Path) -> None:
    """End the server with all it had, then remove its folder; the folder stays when that does not work.

    From here on Ctrl-C is too late.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Settings that it was started with say nothing about how to end it, and wrong ones would stop us.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ATOLL_")}
    argv = [ATOLL, "down", "--data", str(data)]
    down = subprocess.run(argv, env=ours, capture_output=True, text=True, timeout=DOWN_TIMEOUT_S)
    if down.returncode:
        raise RuntimeError(f"`{' '.join(argv)}` failed:\n{down.stderr}")
    shutil.rmtree(data, ignore_errors=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
