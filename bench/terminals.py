"""What terminals cost: output through a terminal against a bare loop that reads a PTY, a reader that does not read, and
a thousand that nobody types into."""

from __future__ import annotations

import base64
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from atoll import Sandbox
from bench.figures import Report
from bench.machine import rss_bytes
from bench.running import MEGABYTE, MemoryWatch
from bench.server import Server

LINE = b"x" * 63 + b"\n"
END = b"=end="
IDLE_IN = 10  # sandboxes
READ_BYTES = 2**18
PER_KEY = 200  # WebSockets that a key may have open
OPEN_S = 30.0


def terminals(report: Report, up: Server, *, size: int, rounds: int, idle: int) -> None:
    """All of it, on the server of this run."""
    throughput(report, size, rounds)
    slow_reader(report, up.pid, size)
    idle_terminals(report, up, idle)


def throughput(report: Report, size: int, rounds: int) -> None:
    """`cat` of a file of lines to a terminal, read as fast as it comes; bare and through Atoll by turns."""
    with Sandbox.create(network="none", disk_mb=2 * size // 2**20 + 64, memory_mb=1024) as sandbox:
        pairs: list[tuple[float, float]] = []
        path = Path(f"/tmp/atoll-bench-{os.getpid()}")
        path.write_bytes(LINE * (size // len(LINE)))
        try:
            sandbox.files.write("/tmp/lines", path.read_bytes())
            for _ in range(rounds):
                bare = _bare(path)
                with Wire(sandbox.id) as wire:
                    pairs.append((bare, _cat(wire)))
        finally:
            path.unlink()
    # Other work on the machine slows both down: the pair of the median ratio, not the two medians.
    bare, ours = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]
    report.value("terminal.bare", "a bare PTY read loop", bare, "MB/s")
    report.value(
        "terminal.output",
        "a terminal's output to a fast reader",
        ours,
        "MB/s",
        against="terminal.bare",
        goal=">= 0.4x",
    )


def _bare(path: Path) -> float:
    pid, master = pty.fork()
    if pid == 0:
        os.execvp("cat", ["cat", str(path)])
    began, read = time.perf_counter(), 0
    try:
        while data := os.read(master, READ_BYTES):
            read += len(data)
    except OSError:  # the other side is closed
        pass
    took_s = time.perf_counter() - began
    os.waitpid(pid, 0)
    os.close(master)
    return read / MEGABYTE / took_s


def _cat(wire: Wire) -> float:
    wire.type(b"stty -echo; PS1=\r")
    time.sleep(0.2)
    wire.drain()
    began, read, tail = time.perf_counter(), 0, b""
    wire.type(b"cat /tmp/lines; printf " + END + b"\r")
    while END not in tail:
        data = wire.sock.recv(READ_BYTES)
        read += len(data)
        tail = tail[-len(END) :] + data
    return read / MEGABYTE / (time.perf_counter() - began)


def slow_reader(report: Report, pid: int, size: int) -> None:
    """A client that asks for output and reads none of it."""
    with (
        Sandbox.create(network="none", memory_mb=1024) as sandbox,
        Wire(sandbox.id) as wire,
        MemoryWatch(pid) as watch,
    ):
        wire.type(b"head -c %d /dev/zero | tr '\\0' x\r" % size)
        time.sleep(2.0)
    grown = watch.growth_bytes / 2**20
    report.value("terminal.slow_reader", "... server memory for one that does not read", grown, "MiB", goal="flat")


def idle_terminals(report: Report, up: Server, count: int) -> None:
    """Terminals that are open and silent, eight clients to a shell: what the server grows by."""
    keys = [_key(f"idle {number}") for number in range(-(-count // PER_KEY))]
    wires: list[Wire] = []
    sandboxes: list[tuple[str, str]] = []
    before = rss_bytes(up.pid)
    try:
        for number, key in enumerate(keys):
            own = [_make(up, key) for _ in range(max(1, IDLE_IN // len(keys)))]
            sandboxes += [(sandbox, key) for sandbox in own]
            for at in range(min(PER_KEY, count - number * PER_KEY)):
                wires.append(Wire(own[at % len(own)], key=key, terminal=f"t{at // 8}"))
        time.sleep(1.0)
        grown = rss_bytes(up.pid) - before
    finally:
        for wire in wires:
            wire.close()
        for sandbox, key in sandboxes:
            _ask(up, "DELETE", f"/v1/sessions/{sandbox}", key=key)
    label = f"server memory for {len(wires)} idle terminals"
    report.value("terminal.idle", label, grown / MEGABYTE, "MB", goal="<= 100 MB")


def _key(name: str) -> str:
    """One of its own: keys that another one made share that one's places."""
    command = [sys.executable, "-m", "atoll.cli.main", "keys", "create", "--name", name, "--json"]
    return str(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["key"])


def _make(up: Server, key: str) -> str:
    return str(_ask(up, "POST", "/v1/sessions", {"image": "host", "network": "none"}, key)["id"])


def _ask(up: Server, method: str, path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key or up.api_key}"}
    answer = httpx2.request(method, up.url + path, json=body, headers=headers, timeout=30)
    answer.raise_for_status()
    return answer.json()


class Wire:
    """The least of a client: a socket after the upgrade, which types, and reads frames without looking at them."""

    def __init__(self, sandbox: str, *, key: str | None = None, terminal: str = "default") -> None:
        url = urlsplit(os.environ["ATOLL_URL"])
        self.sock = socket.create_connection((url.hostname, url.port), OPEN_S)
        self.sock.sendall(
            f"GET /sandboxes/{sandbox}/terminal?terminal={terminal} HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Authorization: Bearer {key or os.environ['ATOLL_API_KEY']}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(1)
        if b" 101 " not in head.splitlines()[0]:
            raise RuntimeError(head.decode())

    def type(self, data: bytes) -> None:
        """One masked binary message; the mask is zero, which any server takes."""
        size = struct.pack("!BBH", 0x82, 0x80 | 126, len(data))
        self.sock.sendall(size + b"\0\0\0\0" + data)

    def drain(self) -> None:
        self.sock.setblocking(False)
        try:
            while self.sock.recv(READ_BYTES):
                pass
        except BlockingIOError:
            pass
        self.sock.setblocking(True)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
