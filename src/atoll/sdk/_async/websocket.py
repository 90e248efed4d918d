"""A WebSocket over the SDK's own connections; `websockets` does the protocol, without input or output of its own.

Process streams use it. One task may receive while others send: a sender never waits for the receiver.
"""

from __future__ import annotations

import threading
from collections import deque

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CLOSED, CLOSING, OPEN
from websockets.uri import parse_uri

from atoll import __version__
from atoll.domain.errors import AtollError
from atoll.sdk._async.http import AsyncPool
from atoll.sdk._async_io import AsyncLock, AsyncWire
from atoll.sdk.errors import Dropped, error_of

OPEN_TIMEOUT_S = 30.0
MESSAGE_BYTES_MAX = 2**24 + 16  # execbox: at most 2^24 - 1 bytes of data in a frame


class AsyncWebSocket:
    """Binary messages both ways."""

    def __init__(self, wire: AsyncWire, protocol: ClientProtocol) -> None:
        self.headers: dict[str, str] = {}  # of the server's answer, names in lower case
        self._wire = wire
        self._protocol = protocol
        self._guard = threading.Lock()  # around the protocol's state, never held while waiting
        self._sending = AsyncLock()
        self._owed: list[bytes] = []  # pongs that a busy sender will take along
        self._answered = False  # frames, even a Close, may come with the answer to the handshake
        self._messages: deque[bytes] = deque()
        self._partial: list[bytes] = []

    @staticmethod
    async def open(pool: AsyncPool, url: str, api_key: str) -> AsyncWebSocket:
        """ConnectionFailed, or the error that the server answered with instead of 101."""
        protocol = ClientProtocol(parse_uri(url), max_size=MESSAGE_BYTES_MAX)
        socket = AsyncWebSocket(await pool.connect(), protocol)
        try:
            await socket._shake_hands(api_key)
        except BaseException as error:
            socket._wire.close()
            if isinstance(error, (OSError, Dropped, WebSocketException)) and not isinstance(error, AtollError):
                raise pool.failed(error) from error
            raise
        return socket

    async def receive(self, timeout_s: float | None = None) -> bytes:
        """The next message. Dropped when the connection has ended; TimeoutError."""
        while not self._messages:
            await self._pump(timeout_s)
        return self._messages.popleft()

    async def send(self, message: bytes) -> None:
        """Returns once the message is with the kernel. Dropped when it surely was not sent."""
        async with self._sending:
            with self._guard:
                if self._protocol.state is not OPEN:
                    raise Dropped
                self._protocol.send_binary(message)
                data = b"".join([*self._owed, *self._protocol.data_to_send()])
                self._owed.clear()
            await self._put(data)

    async def catch_up(self) -> None:
        """Take in what has arrived, so that pings are answered and an end is noticed, when nobody receives."""
        while len(self._messages) < 256 and self._wire.pending():
            await self._pump(OPEN_TIMEOUT_S)

    async def close(self) -> None:
        """Say goodbye and close; a second call does nothing."""
        with self._guard:
            if self._protocol.state is OPEN:
                self._protocol.send_close(1000)
            data = b"".join(self._protocol.data_to_send())
        try:
            if data and not self._sending.locked():
                async with self._sending:
                    await self._wire.send(data)
        except OSError:
            pass
        self._wire.shutdown()
        self._wire.close()

    async def _shake_hands(self, api_key: str) -> None:
        request = self._protocol.connect()
        request.headers["Authorization"] = f"Bearer {api_key}"
        request.headers["User-Agent"] = f"atoll/{__version__}"
        self._protocol.send_request(request)
        await self._wire.send(b"".join(self._protocol.data_to_send()))
        while self._protocol.handshake_exc is None and not self._answered:
            await self._pump(OPEN_TIMEOUT_S)
        error = self._protocol.handshake_exc
        if error is None:
            return
        if isinstance(error, InvalidStatus):
            answer = error.response
            raise error_of(answer.status_code, bytes(answer.body or b""), answer.headers.get("Retry-After"))
        raise error

    async def _pump(self, timeout_s: float | None) -> None:
        """Read once and let the protocol digest it."""
        try:
            data = await self._wire.receive(timeout_s)
        except TimeoutError:
            raise
        except OSError as error:
            raise Dropped from error
        with self._guard:
            fresh = not self._answered
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            for event in self._protocol.events_received():
                self._take(event)
            owed = [piece for piece in self._protocol.data_to_send() if piece]
            self._owed += owed
        if owed and not self._sending.locked():
            await self._pay()
        ended = not data or (not fresh and self._protocol.state in (CLOSING, CLOSED))
        if ended and not self._messages and self._protocol.handshake_exc is None:
            raise Dropped

    async def _pay(self) -> None:
        async with self._sending:
            with self._guard:
                data = b"".join(self._owed)
                self._owed.clear()
            await self._put(data)

    async def _put(self, data: bytes) -> None:
        """Send whole frames; a send that was cut short leaves a connection that nobody can use."""
        try:
            await self._wire.send(data)
        except OSError as error:
            self._wire.shutdown()
            raise Dropped from error
        except BaseException:
            self._wire.shutdown()
            raise

    def _take(self, event: object) -> None:
        if isinstance(event, Response):
            self._answered = True
            self.headers = {name.lower(): value for name, value in event.headers.raw_items()}
        elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            self._partial.append(bytes(event.data))
            if event.fin:
                self._messages.append(b"".join(self._partial))
                self._partial.clear()
