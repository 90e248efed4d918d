# Made by scripts/unasync.py from ../_async/process.py: change that file, not this one.
"""A process in a sandbox as a stream: read its output, write to it, resize it, wait for it.

The process lives in the sandbox, not in the connection: when that drops, the stream finds the process again and goes
on at its offset, so that no output is lost or seen twice.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from atoll.domain.errors import AtollError, Conflict, DeadlineExceeded, InvalidInput
from atoll.domain.process import MAIN, Exit
from atoll.sdk import frames
from atoll.sdk._io import Lock
from atoll.sdk._sync.api import Api
from atoll.sdk._sync.retry import RECONNECT_S, Retry
from atoll.sdk.arguments import millis
from atoll.sdk.errors import ConnectionFailed, Dropped
from atoll.sdk.requests import target_of
from atoll.sdk.secret_values import SecretUse, secret_words
from atoll.sdk.values import Chunk, exit_of

if TYPE_CHECKING:
    from atoll.sdk.streams import WebSocket


class Process:
    """One process. `for chunk in process` gives its output until its end; then `exit_code` is set.

    `offset` counts the output bytes seen so far, stdout and stderr together. Closing it only detaches. Input that was
    on its way when a connection dropped may be lost, never doubled.
    """

    def __init__(self, api: Api, sandbox_id: str, socket: WebSocket, *, id: str, offset: int = 0) -> None:
        self.id = id
        self.sandbox_id = sandbox_id
        self.offset = offset
        self.lost_bytes = 0  # output that the sandbox no longer had when this stream came (back) for it
        self.exit_code: int | None = None
        self.reconnect_s = RECONNECT_S  # 0: never
        self.on_reconnect: Callable[[bool], None] | None = None  # called with False when it drops, True when it is back
        self._api = api
        self._socket = socket
        self._skip = 0  # bytes of a replay that were seen already
        self._closed = False
        self._stdin_closed = False
        self._size: tuple[int, int] | None = None
        self._reconnecting = Lock()
        self._align()

    @staticmethod
    def attach(api: Api, sandbox_id: str, process_id: str = MAIN, offset: int = 0) -> Process:
        """The stream of a process that exists, from byte `offset` of its output on."""
        socket = api.websocket(_attach_target(sandbox_id, process_id, offset))
        return Process(api, sandbox_id, socket, id=process_id, offset=offset)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Chunk]:
        while True:
            chunk = self.read()
            if chunk is None:
                return
            yield chunk

    def read(self, timeout: float | None = None) -> Chunk | None:
        """The next piece of output; None after the last. TimeoutError after `timeout` seconds without any."""
        while self.exit_code is None:
            socket = self._socket
            try:
                message = socket.receive(timeout)
            except Dropped:
                self._reconnect(socket)
                continue
            chunk = self._digest(message)
            if chunk is not None:
                return chunk
            if self.exit_code is not None:
                socket.close()
        return None

    def write(self, data: bytes | str) -> None:
        """To its stdin; text as UTF-8. Waits while the process does not take it."""
        if isinstance(data, str):
            data = data.encode()
        view = memoryview(data)
        for at in range(0, len(view), frames.STDIN_BYTES):
            self._send(frames.stdin(bytes(view[at : at + frames.STDIN_BYTES])))

    def close_stdin(self) -> None:
        """The end of its input."""
        self._stdin_closed = True
        self._send(frames.stdin_close())

    def resize(self, cols: int, rows: int) -> None:
        """The new size of its terminal, in characters; ignored without a terminal."""
        self._size = (cols, rows)
        self._send(frames.resize(cols, rows))

    def wait(self, timeout: float | None = None) -> Exit:
        """Throw away the rest of its output and say how it ended. DeadlineExceeded after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.exit_code is None:
            left = None if until is None else until - time.monotonic()
            try:
                if left is not None and left <= 0:
                    raise TimeoutError
                self.read(left)
            except TimeoutError:
                raise DeadlineExceeded(f"the process still runs after {timeout:g} s") from None
        return self.how_ended()

    def how_ended(self) -> Exit:
        """How it ended, from the server; the exit code alone when the sandbox is gone already."""
        target = target_of("/v1/sessions", self.sandbox_id, "processes", self.id, "wait")
        try:
            return exit_of(self._api.call("GET", target, timeout_s=None))
        except Conflict:
            if self.exit_code is None:
                raise
            code = self.exit_code
            return Exit(code, signal=code - 128 if 128 < code < 193 else None)

    def signal(self, number: int) -> None:
        """Send a signal to its process group. Conflict when it has ended."""
        target = target_of("/v1/sessions", self.sandbox_id, "processes", self.id, "signal")
        self._api.call("POST", target, {"signal": int(number)})

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(9)

    def close(self) -> None:
        """Detach: the process goes on. A second call does nothing."""
        self._closed = True
        self._socket.close()

    def _digest(self, message: bytes) -> Chunk | None:
        frame = frames.decode(message)
        if isinstance(frame, int):
            self.exit_code = frame
            return None
        if isinstance(frame, str):
            if frame.startswith("invalid binary message"):
                return None  # one frame of ours was not taken; the stream goes on
            raise Conflict(frame)  # the process or its sandbox is gone
        data = frame.data
        if self._skip:
            seen = min(self._skip, len(data))
            self._skip -= seen
            data = data[seen:]
        self.offset += len(data)
        return Chunk(frame.stream, data) if data else None

    def _send(self, frame: bytes) -> None:
        while self.exit_code is None:
            socket = self._socket
            try:
                socket.send(frame)
                return
            except Dropped:
                self._reconnect(socket)

    def _reconnect(self, lost: WebSocket) -> None:
        """Replace a lost connection; returns when there is a new one, made here or by somebody else meanwhile."""
        if self._closed:
            raise InvalidInput("this process stream is closed")
        with self._reconnecting:
            if self._socket is not lost:
                return
            lost.close()
            if self.reconnect_s <= 0:
                raise ConnectionFailed("the connection to the process was lost")
            self._tell(False)
            self._socket = self._find_again()
            self._align()
            self._tell(True)
            if self._size is not None:
                self._try_send(frames.resize(*self._size))
            if self._stdin_closed:
                self._try_send(frames.stdin_close())

    def _find_again(self) -> WebSocket:
        retry = Retry(self.reconnect_s)
        while True:
            try:
                return self._api.websocket(_attach_target(self.sandbox_id, self.id, self.offset))
            except AtollError as error:
                if self._closed:
                    raise
                retry.after(error)

    def _try_send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except Dropped:
            pass  # noticed by the next read or write

    def _align(self) -> None:
        """Compare where the server's replay begins with where this stream is."""
        start = int(self._socket.headers.get("atoll-offset") or self.offset)
        self._skip = max(0, self.offset - start)
        if start > self.offset:
            self.lost_bytes += start - self.offset
            self.offset = start

    def _tell(self, connected: bool) -> None:
        if self.on_reconnect is not None:
            self.on_reconnect(connected)


def _attach_target(sandbox_id: str, process_id: str, offset: int) -> str:
    return target_of("/v1/sessions", sandbox_id, "attach", protocol="binary", process=process_id, offset=offset)


def start_process(
    api: Api,
    sandbox_id: str,
    argv: list[str],
    *,
    cwd: str | None,
    env: dict[str, str],
    timeout: float | None,
    stdin: bool,
    tty: tuple[int, int] | None,
    secrets: Sequence[SecretUse | str] | None = None,
) -> Process:
    """Start a process and attach to it. `tty` is (columns, rows) of its terminal, None for none."""
    target = target_of(
        "/v1/sessions",
        sandbox_id,
        "exec",
        protocol="binary",
        workdir=cwd,
        tty=True if tty else None,
        cols=tty[0] if tty else None,
        rows=tty[1] if tty else None,
        timeoutMs=millis(timeout, "timeout"),
        stdin=None if stdin else "false",
    )
    words = argv if len(argv) > 1 else [shlex.quote(argv[0])]  # a single word would be split
    pairs = [("cmd", word) for word in words] + [("env", f"{name}={value}") for name, value in env.items()]
    pairs += [("secret", word) for word in secret_words(secrets)]
    target += "".join(f"&{name}={quote(text, safe='', errors='surrogateescape')}" for name, text in pairs)
    socket = api.websocket(target)
    process_id = socket.headers.get("atoll-process", "")
    return Process(api, sandbox_id, socket, id=process_id)
