"""Plain local processes that stand for those of a sandbox; the stand-in serves them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def response(self) -> Response:
        body = {"error": self.message, "code": self.code, "status": self.status, "detail": self.message}
        return JSONResponse(body, self.status)


class LocalProcess:
    """A command with all of its output."""

    oom_killed = False  # what it says of itself

    def __init__(self, name: str, argv: list[str], tty: bool) -> None:
        self.name, self.argv, self.tty = name, argv, tty
        self.output: list[tuple[int, bytes]] = []
        self.size = 0
        self.code: int | None = None
        self.timed_out = False
        self.changed = asyncio.Condition()
        self.started = time.time()
        self.stdin: Any = None
        self.master = -1
        self.process: asyncio.subprocess.Process | None = None

    async def start(
        self, cwd: Path, env: dict[str, str], stdin: bool, size: tuple[int, int], timeout_s: float | None
    ) -> None:
        full = {"PATH": os.environ["PATH"], "HOME": str(cwd), "TERM": "xterm"} | env
        options: dict[str, Any] = {"cwd": cwd, "env": full, "start_new_session": True}
        try:
            if self.tty:
                self.master, slave = pty.openpty()
                self.resize(*size)
                control = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731
                self.process = await asyncio.create_subprocess_exec(
                    *self.argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=control, **options
                )
                os.close(slave)
                readers = [asyncio.create_task(self._read_master())]
            else:
                source = asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL
                self.process = await asyncio.create_subprocess_exec(
                    *self.argv, stdin=source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **options
                )
                assert self.process.stdout and self.process.stderr
                readers = [
                    asyncio.create_task(self._read(2, self.process.stdout)),
                    asyncio.create_task(self._read(3, self.process.stderr)),
                ]
        except FileNotFoundError:
            self.code = 127
            await self._append(3, f"{self.argv[0]}: not found\n".encode())
            return
        self.task = asyncio.create_task(self._finish(readers, timeout_s))

    async def _finish(self, readers: list[asyncio.Task[None]], timeout_s: float | None) -> None:
        assert self.process
        try:
            await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            self.timed_out = True
            self.send(signal.SIGKILL)
        code = await self.process.wait()
        await asyncio.wait(readers, timeout=5)
        async with self.changed:
            self.code = code if code >= 0 else 128 - code
            self.changed.notify_all()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    async def _read(self, stream: int, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(4096):
            await self._append(stream, data)

    async def _read_master(self) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(self.master, False)
        while True:
            ready = loop.create_future()
            loop.add_reader(self.master, lambda r=ready: r.done() or r.set_result(None))
            await ready
            loop.remove_reader(self.master)
            try:
                data = os.read(self.master, 4096)
            except OSError:
                return
            if not data:
                return
            await self._append(2, data)

    async def _append(self, stream: int, data: bytes) -> None:
        async with self.changed:
            self.output.append((stream, data))
            self.size += len(data)
            self.changed.notify_all()

    async def follow(self, offset: int) -> AsyncIterator[tuple[int, bytes]]:
        at = index = 0
        while True:
            while index < len(self.output):
                stream, data = self.output[index]
                index += 1
                if at + len(data) > offset:
                    yield stream, data[max(0, offset - at) :]
                at += len(data)
            async with self.changed:
                if index == len(self.output):
                    if self.code is not None:
                        return
                    await self.changed.wait()

    async def write(self, data: bytes) -> None:
        if self.master >= 0:
            os.write(self.master, data)
        elif self.process and self.process.stdin and not self.process.stdin.is_closing():
            try:
                self.process.stdin.write(data)
                await self.process.stdin.drain()
            except ConnectionError:
                pass

    def close_stdin(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()

    def resize(self, cols: int, rows: int) -> None:
        if self.master >= 0:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def kill(self, number: int) -> None:
        if self.process is None or self.process.returncode is not None:
            raise Refused(409, "CONFLICT", "the process has ended")
        self.send(number)

    async def end(self) -> None:
        """The process and its group are gone, whether it ended by itself or not."""
        if self.process is not None:
            self.send(signal.SIGKILL)
            await self.task

    def send(self, number: int) -> None:
        """Signal its whole group; nothing happens where there is none any more."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def ended(self) -> dict[str, Any]:
        code = self.code or 0
        return {
            "processId": self.name,
            "exitCode": code,
            "signal": code - 128 if code > 128 else None,
            "timedOut": self.timed_out,
            "oomKilled": self.oom_killed,
            "durationMs": (time.time() - self.started) * 1000,
        }
