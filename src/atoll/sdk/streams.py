"""WebSockets to a server, by `websockets`, for those who await and for those who wait; process streams use them.

Both are connections of its asyncio client, the latter on an event loop in a thread: its threading client holds one
lock while it sends, so that a peer which takes nothing until it is read from would wait for ever.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from atoll import __version__
from atoll.sdk.config import Config
from atoll.sdk.connections import SOCKET_OPTIONS, tls_context
from atoll.sdk.errors import ConnectionFailed, Dropped, error_of

OPEN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 0.5  # for the server's goodbye, which comes behind all output that nobody reads any more
MESSAGE_BYTES_MAX = 2**24 + 16  # execbox: at most 2^24 - 1 bytes of data in a frame
MESSAGES_MAX = 64  # that wait to be read
T = TypeVar("T")


class AsyncWebSocket:
    """Binary messages both ways. One task may receive while others send."""

    def __init__(self, connection: ClientConnection) -> None:
        answer = connection.response
        self.headers = {name.lower(): value for name, value in answer.headers.raw_items()} if answer else {}
        self._connection = connection
        self._sending = asyncio.Lock()

    @staticmethod
    async def open(config: Config, authority: str, target: str) -> AsyncWebSocket:
        """ConnectionFailed, or the error that the server answered with instead of 101."""
        try:
            connection = await connect(
                f"{'wss' if config.tls else 'ws'}://{authority}{config.prefix}{target}",
                host=config.host,  # named, so that no redirection leads elsewhere
                port=config.port,
                ssl=tls_context() if config.tls else None,
                proxy=None,
                compression=None,
                additional_headers={"Authorization": f"Bearer {config.api_key}"},
                user_agent_header=f"atoll/{__version__}",
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=None,  # an answer would wait behind unread output: TCP asks instead, and the server
                max_size=MESSAGE_BYTES_MAX,
                max_queue=MESSAGES_MAX,
                write_limit=0,  # a message is sent when the kernel has all of it
            )
        except InvalidStatus as error:
            answer = error.response
            raise error_of(answer.status_code, bytes(answer.body or b""), answer.headers.get("Retry-After")) from None
        except (OSError, WebSocketException, ValueError) as error:
            why = str(error) or type(error).__name__
            server = f"the Atoll server at {config.host}:{config.port}"
            raise ConnectionFailed(f"no connection to {server}: {why}") from error
        sock = connection.transport.get_extra_info("socket")
        for option in SOCKET_OPTIONS:
            sock.setsockopt(*option)
        return AsyncWebSocket(connection)

    async def receive(self, timeout_s: float | None = None) -> bytes:
        """The next message. Dropped when the connection has ended; TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise Dropped from error

    async def send(self, message: bytes) -> None:
        """Returns once the message is with the kernel. Dropped when it surely was not sent."""
        try:
            async with self._sending:  # behind another's message, nobody could tell
                await self._connection.send(message)
        except ConnectionClosed as error:
            raise Dropped from error

    async def close(self) -> None:
        """Say goodbye and close; a second call does nothing."""
        await self._connection.close()


class WebSocket:
    """The same for callers that wait, in any number of threads; in a forked child it has ended."""

    def __init__(self, pid: int, inner: AsyncWebSocket) -> None:
        self.headers = inner.headers
        self._pid = pid
        self._inner = inner

    @staticmethod
    def open(config: Config, authority: str, target: str) -> WebSocket:
        pid = os.getpid()
        return WebSocket(pid, _wait(pid, AsyncWebSocket.open(config, authority, target)))

    def receive(self, timeout_s: float | None = None) -> bytes:
        return _wait(self._pid, self._inner.receive(timeout_s))

    def send(self, message: bytes) -> None:
        _wait(self._pid, self._inner.send(message))

    def close(self) -> None:
        try:
            _wait(self._pid, self._inner.close())
        except Dropped:
            pass


def _wait(pid: int, work: Coroutine[Any, Any, T]) -> T:
    if pid != os.getpid():
        work.close()
        raise Dropped
    future = asyncio.run_coroutine_threadsafe(work, _loop(pid))
    try:
        return future.result()
    finally:
        future.cancel()  # Ctrl-C: it must not take the next message


@cache
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    """The event loop of all streams of this process; it goes on as long as the process does."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="atoll-streams", daemon=True).start()
    return loop
