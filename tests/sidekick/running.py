"""A sidekick that runs as a plain process, as it would in a container: its code without the isolation around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from asyncio import StreamReader, StreamWriter, open_unix_connection
from contextlib import suppress
from pathlib import Path
from typing import Any

from atoll.sidekick import protocol as wire
from atoll.sidekick.client import SidekickClient

_PROGRAM = """
import json, os, socket, sys
from atoll.sidekick.identity import Identity
from atoll.sidekick.main import serve
os.chdir(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind("sidekick")
listener.listen(2048)
serve(
    listener, Identity(os.getuid(), os.getgid(), separate=False), json.loads(sys.argv[2]),
    usage=dict, oom_count=lambda: 0, ready=lambda: print("ready", flush=True),
)
"""


class RunningSidekick:
    """`folder` is its own; what it says on stderr must be nothing, unless the test takes it."""

    def __init__(self, folder: Path, *, files: int | None = None, **config: Any) -> None:
        self.folder = folder
        whole = {"env": dict(os.environ), "work_dir": str(folder), "ring_bytes": 2**20, **config}
        self._log = (folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(folder), json.dumps(whole)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            preexec_fn=None if files is None else lambda: _limit_files(files),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.log()

    def __enter__(self) -> RunningSidekick:
        return self

    def __exit__(self, *_: object) -> None:
        programs = self._programs()  # of nobody's once it is gone, and of no sandbox that would end them
        self.process.kill()
        self.process.wait(5)
        for pid in programs:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()

    def _programs(self) -> list[int]:
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []  # it has ended by itself
        return [int(pid) for pid in text.split()]

    @property
    def client(self) -> SidekickClient:
        async def connect() -> tuple[StreamReader, StreamWriter]:
            return await open_unix_connection(str(self.folder / "sidekick"), limit=2**20)

        return SidekickClient(connect)

    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    def open(self) -> socket.socket:
        """A raw connection."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.folder / "sidekick"))  # waits while too many others do
        sock.settimeout(10)
        return sock

    def ask(self, request: Any, more: bytes = b"") -> tuple[int, Any] | None:
        """The first frame that answers a request, and whatever else is sent with it; None when it hung up."""
        with self.open() as sock:
            try:
                sock.sendall(wire.json_frame(wire.REQUEST, request) + more)
                return receive(sock)
            except ConnectionError:
                return None

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_bytes(self) -> int:
        """Resident now."""
        status = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def send(sock: socket.socket, kind: int, value: Any = b"") -> None:
    sock.sendall(wire.frame(kind, value) if isinstance(value, bytes) else wire.json_frame(kind, value))


def receive(sock: socket.socket) -> tuple[int, Any] | None:
    """The next frame, JSON read where its kind has it; None at the end of the stream."""
    head = _exactly(sock, wire.HEADER.size)
    if len(head) < wire.HEADER.size:
        return None
    kind, size = wire.HEADER.unpack(head)
    payload = _exactly(sock, size)
    return kind, payload if kind in (wire.STDOUT, wire.STDERR, wire.DATA, wire.END) else json.loads(payload)


def receive_all(sock: socket.socket) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    while (frame := receive(sock)) is not None:
        found.append(frame)
    return found


def until(condition: Any, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def _limit_files(count: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data
