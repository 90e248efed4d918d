"""A person at a terminal: runs a program on a pseudo-terminal of its own, types, and waits for what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from types import TracebackType

from tests.e2e.server import ATOLL, Server, environment


class Terminal:
    """`with Terminal(server, "run", "-it", "--", "bash") as terminal`; what still runs at the end is killed."""

    def __init__(self, server: Server, *words: str, cols: int = 100, rows: int = 30) -> None:
        self.screen = b""
        self._seen = 0
        self._ours, theirs = pty.openpty()
        self.resize(cols, rows)
        # A session of its own, whose controlling terminal this is: as a login shell would start it.
        self.process = subprocess.Popen(
            ["setsid", "-c", *ATOLL, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment({"ATOLL_DATA": str(server.data), "TERM": "xterm"}),
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def resize(self, cols: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def expect(self, pattern: str, within_s: float = 20.0) -> re.Match[bytes]:
        """Wait until it shows what was not shown before; what it matched. AssertionError with the screen."""
        deadline = time.monotonic() + within_s
        expression = re.compile(pattern.encode(), re.DOTALL)
        while not (found := expression.search(self.screen, self._seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} not shown:\n{self.screen.decode(errors='replace')}"
            assert self._read(min(left, 0.5)), f"ended without {pattern!r}:\n{self.screen.decode(errors='replace')}"
        self._seen = found.end()
        return found

    def ended(self, within_s: float = 20.0) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + within_s
        while self._read(0.2) and time.monotonic() < deadline:
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _read(self, wait_s: float) -> bool:
        """Take in what is there; False when the other side is closed."""
        ready, _, _ = select.select([self._ours], [], [], wait_s)
        if not ready:
            return True
        with contextlib.suppress(OSError):
            data = os.read(self._ours, 65_536)
            self.screen += data
            return bool(data)
        return False
