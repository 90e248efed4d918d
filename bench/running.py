"""What a running sandbox costs its user: an exec, a key pressed in a terminal, a big file up and down."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from atoll import Sandbox
from bench.figures import Report
from bench.machine import rss_bytes

MEGABYTE = 10**6


def execs(report: Report, n: int) -> None:
    """/bin/true in a running sandbox, through the API."""
    with Sandbox.create(network="none") as sandbox:
        times = [milliseconds(lambda: sandbox.run(["/bin/true"])) for _ in range(n + 5)][5:]
    report.times("exec", "exec of /bin/true in a running sandbox", times, goal="<= 2 ms")


def terminal_echo(report: Report, n: int) -> None:
    """One key through WebSocket and PTY and its echo back."""
    with Sandbox.create(network="none") as sandbox, sandbox.terminal(command="cat") as terminal:

        def key() -> None:
            terminal.write(b"x")
            chunk = terminal.read(timeout=5)
            if chunk is None or chunk.data != b"x":
                raise RuntimeError(f"the terminal answered {chunk} to a key")

        times = [milliseconds(key) for _ in range(n + 5)][5:]
    report.times("terminal.echo", "terminal: a key and its echo", times, goal="<= 2 ms")


def milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def big_file(report: Report, server_pid: int, size_bytes: int) -> None:
    """A file up and down, with the most memory that the server held meanwhile beyond what it had before."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder:
        source, back = Path(folder, "up"), Path(folder, "down")
        block = bytes(range(256)) * 4096
        with source.open("wb") as file:
            for _ in range(size_bytes // len(block)):
                file.write(block)
        size = source.stat().st_size
        with (
            Sandbox.create(network="none", disk_mb=600, memory_mb=1536) as sandbox,
            MemoryWatch(server_pid) as watch,
        ):
            began = time.perf_counter()
            sandbox.files.upload(source, "/tmp/big")
            up_s = time.perf_counter() - began
            began = time.perf_counter()
            sandbox.files.download("/tmp/big", back)
            down_s = time.perf_counter() - began
        if digest(source) != digest(back):
            raise RuntimeError("the file came back changed")
    label = f"{size // 2**20} MiB file"
    report.value("file.up", f"{label} up", size / MEGABYTE / up_s, "MB/s", goal=">= 300 MB/s")
    report.value("file.down", f"{label} down", size / MEGABYTE / down_s, "MB/s", goal=">= 300 MB/s")
    report.value("file.server_growth", "... server memory meanwhile", watch.growth_bytes / 2**20, "MiB", goal="flat")


def digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


class MemoryWatch:
    """Samples a process's resident memory every 10 ms; `growth_bytes` is its peak above the start."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before = self.peak = rss_bytes(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def growth_bytes(self) -> int:
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, rss_bytes(self.pid))

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
