"""FakeProcess: a process without a program file: a coroutine that writes to a real ring, hears signals and ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.process import Exit, ProcessInfo, ProcessSpec
from atoll.sidekick.client import ProcessStream
from atoll.sidekick.protocol import STDERR, STDOUT
from atoll.sidekick.ring import Ring

RING_BYTES = 2**20
STDIN_BYTES_MAX = 2**18
KILL_GRACE_S = 0.2
PIECE_BYTES = 65_536

Program = Callable[["FakeProcess"], Awaitable[int]]

_HARMLESS = frozenset({signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT})


class FakeProcess:
    """What a program sees (argv, env, cwd, stdin, write, files) and what a client sees (ring, exit)."""

    def __init__(self, process_id: str, pid: int, spec: ProcessSpec, cwd: str, env: dict[str, str]) -> None:
        self.id = process_id
        self.pid = pid
        self.spec = spec
        self.cwd = cwd
        self.env = env
        self.cols, self.rows = spec.cols, spec.rows
        self.ring = Ring(RING_BYTES)
        self.exit: Exit | None = None
        self.ignored: set[int] = set()
        self.running = asyncio.Event()  # not frozen
        self.running.set()
        self.gone = False  # its sandbox ended: followers hear that instead of an exit
        self._started_at = time.time()
        self._started = time.monotonic()
        self._stdin = bytearray()
        self._stdin_closed = not (spec.stdin or spec.tty)
        self._stdin_changed = asyncio.Event()
        self._changed = asyncio.Event()
        self._signal: int | None = None
        self._timed_out = False
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # its program

    def start(self, program: Program) -> None:
        self._task = asyncio.create_task(self._run(program), name=f"fake {self.id}")
        if self.spec.timeout_s is not None:
            self._after(self.spec.timeout_s, self._time_out)

    async def write(self, data: bytes, stream: int = STDOUT) -> None:
        """To stdout or stderr; a terminal has one stream, and its line ends are carriage return and line feed."""
        await self.running.wait()
        if self.spec.tty:
            data, stream = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), STDOUT
        for at in range(0, len(data), PIECE_BYTES):
            self.ring.append(stream, data[at : at + PIECE_BYTES])
            self._tell()
        await asyncio.sleep(0)

    async def complain(self, text: str) -> None:
        await self.write(text.encode() + b"\n", STDERR)

    async def read(self) -> bytes:
        """What is in stdin, at least one byte; empty at its end."""
        while not self._stdin and not self._stdin_closed:
            self._stdin_changed.clear()
            await self._stdin_changed.wait()
        await self.running.wait()
        data = bytes(self._stdin)
        self._stdin.clear()
        self._stdin_changed.set()
        return data

    # its clients

    async def feed(self, data: bytes) -> None:
        while len(self._stdin) >= STDIN_BYTES_MAX and self.exit is None and not self._stdin_closed:
            self._stdin_changed.clear()
            await self._stdin_changed.wait()
        if self.exit is not None or self._stdin_closed:
            return
        if self.spec.tty:
            if b"\x03" in data:
                self.signal(signal.SIGINT)
                return
            data, closed, _ = data.partition(b"\x04")
            self._stdin_closed = bool(closed)
            data = data.replace(b"\r", b"\n")
            self.ring.append(STDOUT, data.replace(b"\n", b"\r\n"))  # a terminal echoes
            self._tell()
        self._stdin += data
        self._stdin_changed.set()

    def close_stdin(self) -> None:
        self._stdin_closed = True
        self._stdin_changed.set()

    def resize(self, cols: int, rows: int) -> None:
        if self.spec.tty:
            self.cols, self.rows = cols, rows

    def signal(self, number: int) -> None:
        """Conflict when it has ended. Without a handler of its own a program dies of it."""
        if self.exit is not None:
            raise Conflict(f"process {self.id} has ended")
        if (number in self.ignored and number != signal.SIGKILL) or number in _HARMLESS:
            return
        self._signal = number
        if self._task is not None:  # soon: a program that was never begun could not end
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def stop(self, grace_s: float) -> None:
        """TERM now, KILL after the grace."""
        if self.exit is None:
            self.signal(signal.SIGTERM)
            self._after(grace_s, self._kill)

    async def ended(self) -> Exit:
        """NotFound when its sandbox ends first."""
        while self.exit is None:
            await self.change()
        return self.exit

    async def change(self) -> None:
        """Returns after the next output, or the end. NotFound when its sandbox has ended."""
        if self.gone:
            raise NotFound("the sandbox has ended")
        changed = self._changed
        await changed.wait()
        if self.gone:
            raise NotFound("the sandbox has ended")

    async def vanish(self) -> None:
        """Its sandbox is destroyed: no exit is told any more."""
        self.gone = True
        for timer in self._timers:
            timer.cancel()
        self._tell()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    def describe(self) -> ProcessInfo:
        return ProcessInfo(
            self.id,
            self.spec.argv,
            self.pid,
            self.spec.tty,
            self._started_at,
            self.ring.start,
            self.ring.end,
            self.exit,
            self.spec.label,
        )

    async def _run(self, program: Program) -> None:
        code, number = 0, None
        try:
            code = await program(self) & 0xFF
        except asyncio.CancelledError:
            number = self._signal or signal.SIGKILL
            code = 128 + number
        except Exception as error:
            self.ring.append(STDERR, f"{self.spec.argv[0]}: {error}\n".encode())
            code = 1
        for timer in self._timers:
            timer.cancel()
        self._stdin_closed = True
        self._stdin_changed.set()
        duration_s = time.monotonic() - self._started
        self.exit = Exit(code, None if number is None else int(number), self._timed_out, False, duration_s)
        self._tell()

    def _time_out(self) -> None:
        self._timed_out = True
        self.stop(KILL_GRACE_S)

    def _kill(self) -> None:
        if self.exit is None:
            self.signal(signal.SIGKILL)

    def _after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, call))

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class FakeStream(ProcessStream):
    """Follows a FakeProcess's ring as a connection would."""

    def __init__(self, process: FakeProcess, offset: int) -> None:  # pyright: ignore[reportMissingSuperCall]
        self._process = process
        self.id, self.pid, self.exit = process.id, process.pid, None
        self.offset = self.first_offset = min(max(offset, process.ring.start), process.ring.end)

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        process = self._process
        while True:
            piece = process.ring.read(self.offset)
            if piece is not None:
                self.offset = max(self.offset, process.ring.start) + len(piece[1])
                yield piece
            elif process.gone:
                raise NotFound("the sandbox has ended")
            elif process.exit is not None:
                self.exit = process.exit
                return
            else:
                await process.change()

    async def write_stdin(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE_BYTES):
            await self._process.feed(data[at : at + PIECE_BYTES])

    async def close_stdin(self) -> None:
        if self._process.spec.tty:
            await self._process.feed(b"\x04")
        else:
            self._process.close_stdin()

    async def resize(self, cols: int, rows: int) -> None:
        self._process.resize(cols, rows)

    async def close(self) -> None:
        """Nothing is held."""
