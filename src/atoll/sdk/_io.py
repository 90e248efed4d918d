"""The few operations that differ between waiting and awaiting; everything above is written once, in `_async/`.

Each name exists twice, `Async...` and plain: the script that makes `_sync/` from `_async/` swaps one for the other.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

RECEIVE_BYTES = 262_144
SEND_TIMEOUT_S = 60.0
# A dead peer is noticed after about 30 + 3 * 10 seconds, also while nobody sends.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


def _prepare(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _readable(sock: socket.socket) -> bool:
    """Whether something, be it the end, can be read from `sock` now."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _tls_context() -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context()


class AsyncWire:
    """One TCP connection. Errors are OSError; TimeoutError is one of them."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @staticmethod
    async def open(host: str, port: int, tls: bool, timeout_s: float) -> AsyncWire:
        async with asyncio.timeout(timeout_s):
            if tls:
                return await _AsyncTlsWire.connect(host, port)
            return AsyncWire(await _async_connect(host, port))

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def receive(self, timeout_s: float | None) -> bytes:
        """What has arrived, at most RECEIVE_BYTES; b"" at the end."""
        if timeout_s is None:
            return await asyncio.get_running_loop().sock_recv(self._sock, RECEIVE_BYTES)
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().sock_recv(self._sock, RECEIVE_BYTES)

    def pending(self) -> bool:
        """Whether `receive` would return at once; on an idle connection that means that it has ended."""
        return _readable(self._sock)

    def usable(self) -> bool:
        """Whether this event loop can use it."""
        return True

    def shutdown(self) -> None:
        """End both directions, so that a reader in another task wakes up."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


class _AsyncTlsWire(AsyncWire):
    """The same over TLS, through asyncio's streams: they belong to one event loop."""

    __slots__ = ("_loop", "_reader", "_writer")

    def __init__(self, sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(sock)
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()

    @staticmethod
    async def connect(host: str, port: int) -> _AsyncTlsWire:
        sock = await _async_connect(host, port)
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=_tls_context(), server_hostname=host, limit=RECEIVE_BYTES
            )
        except BaseException:
            sock.close()
            raise
        return _AsyncTlsWire(sock, reader, writer)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            self._writer.write(data)
            await self._writer.drain()

    async def receive(self, timeout_s: float | None) -> bytes:
        async with asyncio.timeout(timeout_s):
            return await self._reader.read(RECEIVE_BYTES)

    def pending(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    def usable(self) -> bool:
        return asyncio.get_running_loop() is self._loop

    def shutdown(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._writer.close()


async def _async_connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            _prepare(sock)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


class Wire:
    """One TCP connection. Errors are OSError; TimeoutError is one of them.

    One thread may send while another receives: the kernel keeps a timeout for each direction.
    """

    __slots__ = ("_receive_timeout_s", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._receive_timeout_s: float | None = None

    @staticmethod
    def open(host: str, port: int, tls: bool, timeout_s: float) -> Wire:
        sock = socket.create_connection((host, port), timeout_s)
        try:
            _prepare(sock)
            if tls:
                sock = _tls_context().wrap_socket(sock, server_hostname=host)
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))
        except BaseException:
            sock.close()
            raise
        return Wire(sock)

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError("the server takes no more data") from None

    def receive(self, timeout_s: float | None) -> bytes:
        """What has arrived, at most RECEIVE_BYTES; b"" at the end."""
        if timeout_s != self._receive_timeout_s:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout_s or 0.0))
            self._receive_timeout_s = timeout_s
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            raise TimeoutError("the server does not answer") from None
        except OSError as error:
            if type(error).__name__ == "SSLWantReadError":
                raise TimeoutError("the server does not answer") from None
            raise

    def pending(self) -> bool:
        """Whether `receive` would return at once; on an idle connection that means that it has ended."""
        return _readable(self._sock)

    def usable(self) -> bool:
        return True

    def shutdown(self) -> None:
        """End both directions, so that a reader in another thread wakes up."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


def _timeval(seconds: float) -> bytes:
    """For SO_RCVTIMEO; 0 waits forever, so that a tiny timeout must not become it."""
    micros = max(1, round(seconds * 1e6)) if seconds > 0 else 0
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


AsyncLock = asyncio.Lock
Lock = threading.Lock


async def async_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


async def async_read(file: IO[bytes], size: int) -> bytes:
    """Disk reads belong in a thread; files in memory do not."""
    if hasattr(file, "getbuffer"):
        return file.read(size)
    return await asyncio.to_thread(file.read, size)


def read(file: IO[bytes], size: int) -> bytes:
    return file.read(size)


async def async_write(file: IO[bytes], data: bytes) -> None:
    if hasattr(file, "getbuffer"):
        file.write(data)
    else:
        await asyncio.to_thread(file.write, data)


def write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


async def async_call(function: Callable[[Any], Any], argument: object) -> None:
    """Call back; a coroutine function is awaited."""
    answer = function(argument)
    if inspect.isawaitable(answer):
        await answer


def call(function: Callable[[Any], Any], argument: object) -> None:
    function(argument)


class AsyncBackground:
    """A call that goes on beside the caller; `join` waits for it and raises what it raised."""

    def __init__(self, function: Callable[..., Awaitable[Any]], *arguments: object) -> None:
        self._task = asyncio.ensure_future(function(*arguments))

    async def join(self) -> None:
        await self._task

    async def cancel(self) -> None:
        """Give it up. Its connection must be closed already: the sync twin can only wait for the end."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # looked at: nobody is to be told


class Background:
    """A call that goes on beside the caller, in a thread; `join` waits for it and raises what it raised."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        try:
            function(*arguments)
        except BaseException as error:  # handed to join
            self._error = error

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Its connection must be closed already: a thread can only be waited for."""
        self._thread.join()


def forget_in_child(forget: Callable[[], None]) -> None:
    """Call `forget` in every forked child: two processes must never share a connection."""
    os.register_at_fork(after_in_child=forget)
