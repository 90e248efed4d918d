"""A program on a pseudo terminal, as a person would use it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time


class Terminal:
    """`type` and `expect`; `screen` is all that was shown."""

    def __init__(self, argv: list[str], environment: dict[str, str], size: tuple[int, int]) -> None:
        self.screen = b""
        self.code: int | None = None
        self._seen = 0
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            # The parent sets the size before it lets us go on.
            os.read(0, 1)
            environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
            os.execvpe(argv[0], argv, environment)
        self.resize(*size, tell=False)
        self.before = termios.tcgetattr(self._master)
        os.write(self._master, b"\n")

    def type(self, text: str | bytes) -> None:
        os.write(self._master, text.encode() if isinstance(text, str) else text)

    def expect(self, wanted: str | bytes, timeout_s: float = 20) -> bytes:
        """Wait until it is shown, after what was expected before."""
        wanted = wanted.encode() if isinstance(wanted, str) else wanted
        until = time.monotonic() + timeout_s
        while (at := self.screen.find(wanted, self._seen)) < 0:
            if not self._read(until):
                raise AssertionError(f"{wanted!r} was not shown; what was: {self.screen[self._seen :]!r}")
        shown = self.screen[self._seen : at]
        self._seen = at + len(wanted)
        return shown

    def resize(self, cols: int, rows: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        if tell:
            os.kill(self.pid, signal.SIGWINCH)

    def hang_up(self) -> None:
        """Close the window. Its exit code is all that can be had afterwards."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDONLY)

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self._master)[3] & termios.ICANON

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self._master)[:6] == self.before[:6]

    def wait(self, timeout_s: float = 20) -> int:
        """Its exit code; what it shows meanwhile is read."""
        until = time.monotonic() + timeout_s
        while self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.code = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() > until:
                raise AssertionError(f"it still runs; it showed {self.screen[self._seen :]!r}")
            self._read(time.monotonic() + 0.05)
        while self._read(time.monotonic()):
            pass
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._master)

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:
            return False
        self.screen += data
        return bool(data)
