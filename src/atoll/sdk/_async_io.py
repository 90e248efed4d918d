"""What differs when the SDK awaits: connections, locks, pauses and files. `_io` has the same for waiting.

The script that makes `_sync/` from `_async/` swaps one for the other; everything above is written once.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import IO, Any

from atoll.sdk._io import RECEIVE_BYTES, SEND_TIMEOUT_S, prepare, readable

AsyncLock = asyncio.Lock


class AsyncWire:
    """One TCP connection. Errors are OSError; TimeoutError is one of them."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @staticmethod
    async def open(host: str, port: int, timeout_s: float) -> AsyncWire:
        async with asyncio.timeout(timeout_s):
            return AsyncWire(await _async_connect(host, port))

    @property
    def sock(self) -> socket.socket:
        return self._sock

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
        return readable(self._sock)

    def receive_now(self) -> bytes:
        """What has arrived, for when `pending` says so."""
        return self._sock.recv(RECEIVE_BYTES)

    def shutdown(self) -> None:
        """End both directions, so that a reader in another task wakes up."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


async def _async_connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            prepare(sock)
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


async def async_sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def async_read(file: IO[bytes], size: int) -> bytes:
    """Disk reads belong in a thread; files in memory do not."""
    if hasattr(file, "getbuffer"):
        return file.read(size)
    return await asyncio.to_thread(file.read, size)


async def async_write(file: IO[bytes], data: bytes) -> None:
    if hasattr(file, "getbuffer"):
        file.write(data)
    else:
        await asyncio.to_thread(file.write, data)


async def async_call(function: Callable[[Any], Any], argument: object) -> None:
    """Call back; a coroutine function is awaited."""
    answer = function(argument)
    if inspect.isawaitable(answer):
        await answer


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
