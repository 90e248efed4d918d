"""One process of a sandbox on this terminal: its output here, this input there, until it ends or somebody leaves.

`run`, `exec`, `shell` and `attach` call `follow`. The terminal is given back as it was, however a session ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.cli.failure import OURS, TIMED_OUT, say
from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.domain.process import MAIN, Exit

if TYPE_CHECKING:
    from atoll.sdk import AsyncProcess, AsyncSandbox

STDIN, STDOUT, STDERR = 0, 1, 2
KILLED = 128 + signal.SIGKILL
READ_BYTES = 65_536
CTRL_C = b"\x03"
WAITS_FOR_SERVER_S = 24 * 3600.0  # a person can end the waiting; a script has its own limits
KEPT_BYTES_MAX = 8 * 2**20  # of each stream, with --json
KEPT_CHUNKS = 64  # of input that waits for the process
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended: with the process's exit code, or because the person left it running, or with the sandbox."""

    code: int
    left: bool = False
    oom_killed: bool = False
    lost: str = ""  # what the server said when the sandbox was gone under the process


def terminal_size() -> tuple[int, int]:
    """(columns, rows) of this terminal; 80, 24 when it has none or does not say. COLUMNS and LINES do not count: they
    may be those of another one."""
    for descriptor in (STDOUT, STDIN, STDERR):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(descriptor)
            if columns and rows:
                return columns, rows
    return 80, 24


class Kept:
    """Output that is kept for one JSON object instead of being shown."""

    def __init__(self) -> None:
        self.truncated = False
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}

    def add(self, stream: str, data: bytes) -> None:
        kept = self._streams[stream]
        self.truncated = self.truncated or len(kept) + len(data) > KEPT_BYTES_MAX
        kept += data[: KEPT_BYTES_MAX - len(kept)]

    async def report(self, sandbox: AsyncSandbox, process: AsyncProcess, outcome: Outcome) -> dict[str, object]:
        """What `--json` prints."""
        try:
            end = await process.how_ended()
        except AtollError:
            end = Exit(outcome.code)
        return {
            "id": sandbox.id,
            "process": process.id,
            "exit_code": outcome.code,
            "signal": end.signal,
            "timed_out": end.timed_out or outcome.code == TIMED_OUT,
            "oom_killed": outcome.oom_killed,
            "duration_s": end.duration_s,
            "truncated": self.truncated,
            **{stream: data.decode("utf-8", "replace") for stream, data in self._streams.items()},
        }


async def follow(
    sandbox: AsyncSandbox, process: AsyncProcess, *, tty: bool, reads_stdin: bool, keep: Kept | None = None
) -> Outcome:
    """Connect this program's streams with the process until its end. With `tty` this terminal becomes its own.

    SIGINT and its like go to the process; a third SIGINT gives up. With a terminal, Enter ~ . leaves it running.
    """
    outcome = await _follow(process, tty, reads_stdin, keep)
    if outcome.lost:
        return Outcome(await _explain_loss(sandbox, process.id, outcome.lost))
    if outcome.code == KILLED and await _out_of_memory(sandbox, process):
        say("killed: it needed more memory than its sandbox has")
        return Outcome(outcome.code, oom_killed=True)
    return outcome


async def _out_of_memory(sandbox: AsyncSandbox, process: AsyncProcess) -> bool:
    try:
        if (await process.how_ended()).oom_killed:
            return True
        return process.id == MAIN and (await sandbox.info()).reason == "oom_killed"
    except AtollError:
        return False  # it is gone, and so is the answer


async def _explain_loss(sandbox: AsyncSandbox, process_id: str, said: str) -> int:
    """Say why the sandbox ended; the exit code that tells the most."""
    try:
        info = await sandbox.info()
    except AtollError:
        say(f"the sandbox is gone: {said}")
        return OURS
    if process_id == MAIN and info.exit_code is not None:
        return info.exit_code
    say(f"the sandbox has ended: {info.reason or said}" if not info.live else said)
    return TIMED_OUT if info.reason == "timeout" else OURS


async def _follow(process: AsyncProcess, tty: bool, reads_stdin: bool, keep: Kept | None) -> Outcome:
    raw = tty and os.isatty(STDIN)
    session = _Session(process, raw, keep)
    process.reconnect_s = WAITS_FOR_SERVER_S
    process.on_reconnect = session.tell
    with _raw_terminal() if raw else contextlib.nullcontext():
        return await session.run(tty, reads_stdin)


class _Session:
    def __init__(self, process: AsyncProcess, raw: bool, keep: Kept | None) -> None:
        self._keep = keep
        self._process = process
        self._raw = raw
        self._connected = True
        self._interrupts = 0
        self._left = asyncio.Event()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue(KEPT_CHUNKS)
        self._leaving = _Leaving()

    async def run(self, tty: bool, reads_stdin: bool) -> Outcome:
        output = asyncio.create_task(self._show_output())
        left = asyncio.create_task(self._left.wait())
        others = [asyncio.create_task(self._send_input())]
        if reads_stdin:
            others.append(asyncio.create_task(self._read_input()))
        elif not tty:
            self._input.put_nowait(None)
        with self._signals(tty):
            try:
                done, _ = await asyncio.wait({output, left}, return_when=asyncio.FIRST_COMPLETED)
                return output.result() if output in done else Outcome(0, left=True)
            finally:
                for task in (output, left, *others):
                    task.cancel()
                await asyncio.wait([output, left, *others])
                await self._process.close()

    def tell(self, connected: bool) -> None:
        """The connection dropped, or is back."""
        self._connected = connected
        words = "connected again" if connected else "connection lost, waiting for the server (Ctrl-C leaves)"
        if self._raw or os.isatty(STDERR):
            end = "\r\n" if self._raw else "\n"
            sys.stderr.write(f"{end if not connected else ''}[atoll: {words}]{end}")
            sys.stderr.flush()

    async def _show_output(self) -> Outcome:
        try:
            async for stream, data in self._process:
                if self._keep is not None:
                    self._keep.add(stream, data)
                    continue
                _write_all(STDERR if stream == "stderr" else STDOUT, data)
        except BrokenPipeError:
            # Who read our output has gone: tell the process as a pipe would have.
            self._later(self._process.signal(signal.SIGPIPE))
            await asyncio.wait(_running, timeout=1)
            return Outcome(128 + signal.SIGPIPE)
        except (Conflict, NotFound) as error:
            return Outcome(OURS, lost=error.message)
        except OSError:
            if not self._raw:
                raise
            return Outcome(0, left=True)  # the terminal is gone, and what is shown to nobody is kept for `attach`
        if self._process.lost_bytes:
            say(f"{self._process.lost_bytes} bytes of output came while nobody was connected and are lost")
            if self._keep is not None:
                self._keep.truncated = True
        assert self._process.exit_code is not None
        return Outcome(self._process.exit_code)

    async def _read_input(self) -> None:
        async for data in _stdin():
            if self._raw:
                if not self._connected and CTRL_C in data:
                    self._left.set()
                    return
                data, leave = self._leaving.look(data)
                if leave:
                    self._left.set()
                    return
            if self._raw and self._input.full():
                continue  # typed into a connection that is long gone
            await self._input.put(data)
        if self._raw:  # a Ctrl-D is a byte here, so that this is the terminal's own end: its window was closed
            self._left.set()
            return
        await self._input.put(None)

    async def _send_input(self) -> None:
        with contextlib.suppress(AtollError):  # the output side says what there is to say
            while (data := await self._input.get()) is not None:
                await self._process.write(data)
            await self._process.close_stdin()

    @contextlib.contextmanager
    def _signals(self, tty: bool) -> Generator[None]:
        loop = asyncio.get_running_loop()
        forwarded = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        for number in forwarded:
            loop.add_signal_handler(number, self._on_signal, number)
        if tty:
            loop.add_signal_handler(signal.SIGWINCH, self._on_resize)
        try:
            yield
        finally:
            for number in (*forwarded, signal.SIGWINCH):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        self._interrupts += number == signal.SIGINT
        gone = number in (signal.SIGTERM, signal.SIGHUP) and self._raw  # its terminal or its session is ending
        if not self._connected or gone or self._interrupts > 2:
            self._left.set()
            return
        if self._interrupts == 2:
            say("it has not ended yet: Ctrl-C again stops waiting for it")
        self._later(self._process.signal(number))

    def _on_resize(self) -> None:
        self._later(self._process.resize(*terminal_size()))

    def _later(self, work: object) -> None:
        async def quietly() -> None:
            with contextlib.suppress(AtollError):
                await work  # type: ignore[misc]

        task = asyncio.ensure_future(quietly())
        _running.add(task)
        task.add_done_callback(_running.discard)


_running: set[asyncio.Future[None]] = set()


class _Leaving:
    """Finds `~.` at the beginning of a typed line, as ssh does."""

    def __init__(self) -> None:
        self._fresh = True  # at the beginning of a line
        self._tilde = False

    def look(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be sent, and whether the person wants to leave."""
        out = bytearray()
        for byte in data:
            if self._tilde:
                self._tilde = False
                if byte == ord("."):
                    return bytes(out), True
                if byte != ord("~"):
                    out.append(ord("~"))
            elif self._fresh and byte == ord("~"):
                self._tilde = True
                self._fresh = False
                continue
            out.append(byte)
            self._fresh = byte in b"\r\n"
        return bytes(out), False


async def _stdin() -> AsyncIterator[bytes]:
    """What comes in on descriptor 0, as it comes; a regular file is read in a thread, as epoll refuses it."""
    loop = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(STDIN, _resolve, ready)
        except (OSError, ValueError):
            data = await asyncio.to_thread(_read_stdin)
        else:
            try:
                await ready
            finally:
                loop.remove_reader(STDIN)
            data = _read_stdin()
        if not data:
            return
        yield data


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _read_stdin() -> bytes:
    try:
        return os.read(STDIN, READ_BYTES)
    except OSError:  # closed, or a terminal that is gone
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # somebody made our terminal non-blocking
            os.set_blocking(descriptor, True)


@contextlib.contextmanager
def _raw_terminal() -> Generator[None]:
    before = termios.tcgetattr(STDIN)
    tty.setraw(STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
