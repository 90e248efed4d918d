"""Connections to one server, kept alive and shared by all sandboxes of the process; `AsyncApi` speaks through them.

Requests are single buffers and answers go through llhttp: about 0.1 ms of client time for a request, where general
HTTP clients take five times as much. One pool serves any number of keys and of event loops.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import IO

from atoll.domain.errors import AtollError, DeadlineExceeded, TooLarge
from atoll.sdk._async_io import AsyncWire, async_read
from atoll.sdk._io import forget_in_child
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.http1 import AnswerParser, BrokenAnswer, Reply

CONNECT_TIMEOUT_S = 10.0
IDLE_MAX_S = 4.0  # servers close idle connections after 5 s or more: never be the one who uses it just then
IDLE_MAX = 128  # connections kept per server
REPLY_BYTES_MAX = 256 * 2**20
UPLOAD_CHUNK_BYTES = 1 << 20
# A second run of these does no harm, so that they may be sent again when a kept connection turns out to be dead.
_REPEATABLE = frozenset({"GET", "DELETE"})


class AsyncPool:
    """The idle connections to one server."""

    def __init__(self, host: str, port: int, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self._idle: deque[tuple[AsyncWire, float]] = deque()  # append and pop are atomic: threads share it

    async def take(self) -> tuple[AsyncWire, bool]:
        """A connection, and whether it was used before."""
        now = time.monotonic()
        while self._idle:
            try:
                wire, since = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if now - since < IDLE_MAX_S and not wire.pending():
                return wire, True
            wire.close()
        return await self.connect(), False

    async def connect(self) -> AsyncWire:
        """A new connection; ConnectionFailed."""
        try:
            if self.tls:
                from atoll.sdk._async.tls import AsyncTlsWire

                return await AsyncTlsWire.open_tls(self.host, self.port, CONNECT_TIMEOUT_S)
            return await AsyncWire.open(self.host, self.port, CONNECT_TIMEOUT_S)
        except OSError as error:
            raise self.failed(error) from error

    def give(self, wire: AsyncWire) -> None:
        """Keep it for the next request."""
        self._idle.append((wire, time.monotonic()))
        while len(self._idle) > IDLE_MAX:
            self._idle.popleft()[0].close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()

    def failed(self, error: BaseException) -> ConnectionFailed:
        why = str(error) or type(error).__name__
        return ConnectionFailed(f"no connection to the Atoll server at {self.host}:{self.port}: {why}")


_pools: dict[tuple[str, int, bool], AsyncPool] = {}


def shared_pool(host: str, port: int, tls: bool) -> AsyncPool:
    """This process's pool for that server."""
    key = (host, port, tls)
    pool = _pools.get(key)
    if pool is None:
        pool = _pools.setdefault(key, AsyncPool(host, port, tls))
    return pool


def close_pools() -> None:
    """Close what is idle; called at exit, and by tests."""
    for pool in _pools.values():
        pool.close()


atexit.register(close_pools)
forget_in_child(close_pools)


class AsyncBody:
    """An answer that is read as it comes. Iterate to its end, or close it: then its connection is not kept."""

    def __init__(self, pool: AsyncPool, wire: AsyncWire, parser: AnswerParser, timeout_s: float | None) -> None:
        self.status = parser.status
        self.headers = parser.headers
        self._pool = pool
        self._wire: AsyncWire | None = wire
        self._parser = parser
        self._timeout_s = timeout_s

    async def __aenter__(self) -> AsyncBody:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parser = self._parser
        while True:
            if parser.pieces:
                yield parser.take()
            if parser.done or self._wire is None:
                break
            await self._feed(self._wire)
        self._finish()

    async def read(self, bytes_max: int = REPLY_BYTES_MAX) -> bytes:
        """All of it; TooLarge beyond `bytes_max`."""
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = self._parser.take()
            pieces.append(piece)
            size += len(piece)
            if size > bytes_max:
                self.close()
                raise TooLarge(f"the answer is longer than {bytes_max} bytes")
            if self._parser.done or self._wire is None:
                break
            await self._feed(self._wire)
        self._finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _feed(self, wire: AsyncWire) -> None:
        try:
            self._parser.feed(await wire.receive(self._timeout_s))
        except BaseException as error:
            self.close()
            raise _translated(self._pool, error, self._timeout_s) from error

    def _finish(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if self._parser.keep_alive:
            self._pool.give(wire)
        else:
            wire.close()


async def open_body(
    pool: AsyncPool, method: str, head: bytes, body: bytes | AsyncUpload, timeout_s: float | None
) -> AsyncBody:
    """Send a request and read its answer's head. ConnectionFailed, DeadlineExceeded (`timeout_s` of silence)."""
    while True:
        wire, reused = await pool.take()
        parser = AnswerParser()
        try:
            await _send(wire, head, body)
            while not parser.head_done:
                parser.feed(await wire.receive(timeout_s))
            return AsyncBody(pool, wire, parser, timeout_s)
        except BaseException as error:
            wire.close()
            stale = reused and not parser.begun and not isinstance(error, TimeoutError)
            if stale and isinstance(error, (OSError, BrokenAnswer)) and method in _REPEATABLE:
                continue
            raise _translated(pool, error, timeout_s) from error


async def request(
    pool: AsyncPool, method: str, head: bytes, body: bytes | AsyncUpload, timeout_s: float | None
) -> Reply:
    """Send a request and read its whole answer."""
    answer = await open_body(pool, method, head, body, timeout_s)
    return Reply(answer.status, answer.headers, await answer.read())


class AsyncUpload:
    """A request body that is read from a file: `size` bytes, or chunked to its end when that is None."""

    def __init__(self, file: IO[bytes], size: int | None) -> None:
        self._file = file
        self.size = size

    async def send(self, wire: AsyncWire) -> None:
        left = self.size
        while left is None or left > 0:
            size = UPLOAD_CHUNK_BYTES if left is None else min(left, UPLOAD_CHUNK_BYTES)
            data = await async_read(self._file, size)
            if left is None:
                await wire.send(b"%x\r\n%b\r\n" % (len(data), data))
                if not data:
                    return
            else:
                if not data:
                    raise EOFError("the file became shorter while it was sent")
                await wire.send(data)
                left -= len(data)


async def _send(wire: AsyncWire, head: bytes, body: bytes | AsyncUpload) -> None:
    if isinstance(body, bytes):
        await wire.send(head + body)
        return
    await wire.send(head)
    try:
        await body.send(wire)
    except (BrokenPipeError, ConnectionResetError):
        # The server has refused without reading all of it: its answer says why.
        if not wire.pending():
            raise


def _translated(pool: AsyncPool, error: BaseException, timeout_s: float | None) -> BaseException:
    if isinstance(error, TimeoutError):
        waited = f"{timeout_s:g} s" if timeout_s is not None else "a long time"
        return DeadlineExceeded(f"the Atoll server at {pool.host}:{pool.port} was silent for {waited}")
    if isinstance(error, (OSError, BrokenAnswer)) and not isinstance(error, AtollError):
        return pool.failed(error)
    return error
