"""WebSockets through a preview: a client's messages go to a port of a sandbox and those of the port come back.

Both ends are WebSocket connections of their own (RFC 6455): pings are answered on each side, and messages are bounded,
as is all else that a port may send; surfaces/websocket_transport.py bounds the client's side in the same way.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from typing import Any

from websockets.client import ClientProtocol
from websockets.datastructures import Headers as WebSocketHeaders
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from atoll.gateway.previews.failures import Broken, Gone, Late, UpstreamFailed
from atoll.gateway.previews.heads import Asked, Asking, passed_headers
from atoll.gateway.previews.limits import CarryLimits
from atoll.gateway.previews.proxy import Receive, Send
from atoll.gateway.previews.upstream import HEAD_BYTES_MAX, HEADERS_MAX, Headers
from atoll.gateway.previews.wire import PIECE_BYTES as WIRE_BYTES
from atoll.gateway.previews.wire import Wire

HELD_BYTES = 131_072  # of messages that the client has not taken yet, where no more is read
MESSAGE_BYTES = 64  # that every message counts for besides its own: empty ones are held too
FRAMES_PER_TURN = 256  # of one port's connection, in one turn of the event loop
PIECE_BYTES = 2 * FRAMES_PER_TURN  # that are parsed at a time: the smallest frame has two bytes
IDLE_FRAMES_PER_S = 2_000  # control frames and empty fragments, which carry nothing
MESSAGES_PER_TURN = 16  # that the client is sent before others have their turn
CLOSE_S = 5.0
GOING_AWAY, ABNORMAL, BAD_DATA, FLOOD, BAD_GATEWAY = 1001, 1006, 1007, 1008, 1014
_HANDSHAKE = (b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol")
_HEAD_END = b"\r\n\r\n"
_NOTHING = memoryview(b"")
_CLOSABLE = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})


class Denied(Exception):
    """The port answers the handshake with something else than an upgrade."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        super().__init__()


class Channel:
    """The connection to the port. `open`, then `send` and `receive` messages, as of ASGI."""

    def __init__(self, sock: socket.socket, limits: CarryLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self.idle_s = limits.idle_s
        self._wire = Wire(sock)
        self._wire.on_data = self._take
        self._wire.on_failure = self._wake
        self._wire.on_room = self._pong_at_last
        self._protocol: ClientProtocol | None = None
        self._head: bytearray | None = bytearray()  # of the answer to the handshake, until it is there in whole
        self._answer_bytes = 0  # those of a refusal's body too
        self._answer: Response | None = None
        self._unparsed = _NOTHING
        self._turn: asyncio.Handle | None = None
        self._idle_frames = 0  # in the second that began at `_idle_since`
        self._idle_since = 0.0
        self._pong = b""  # that waits until there is room
        self._messages: deque[tuple[dict[str, Any], int]] = deque()  # each with its bytes
        self._parts: bytes | memoryview | bytearray = b""  # of a message, joined as they come
        self._kind = Opcode.TEXT
        self._held = 0
        self._unread = False  # nobody takes messages any more: the port's answer to the close lies behind them
        self._over: tuple[int, str] | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def open(self, path: bytes, asked: Asked, asking: Asking, subprotocols: list[str]) -> str | None:
        """The subprotocol that was chosen. Denied, UpstreamFailed."""
        target, _, query = path.partition(b"#")[0].decode("latin-1").partition("?")  # as HTTP cuts it
        uri = WebSocketURI(False, "127.0.0.1", asked.port, target, query)
        offered = [Subprotocol(one) for one in subprotocols]
        protocol = self._protocol = ClientProtocol(uri, subprotocols=offered or None, max_size=self._limits.frame_bytes)
        request = protocol.connect()
        besides = WebSocketHeaders()
        for name, value in passed_headers(asking, asked.stripped, _HANDSHAKE):
            besides[name.decode("latin-1")] = value.decode("latin-1")
        for line in asked.forwarded.decode("latin-1").split("\r\n")[:-1]:
            name, _, value = line.partition(": ")
            besides[name] = value
        request.headers.update(besides)
        protocol.send_request(request)
        self._wire.resume()
        self._flush()
        try:
            async with asyncio.timeout(self._limits.first_byte_s):
                while self._answer is None:
                    await self._wait()
        except TimeoutError:
            raise Late("it did not answer the handshake in time") from None
        if protocol.handshake_exc is not None:
            raise _refusal(protocol.handshake_exc, self._answer)
        self._answer.headers.clear()  # the protocol would keep them as long as it is open
        return protocol.subprotocol

    async def send(self, message: dict[str, Any]) -> None:
        """A message of the client's. Ignored once it is over."""
        protocol = self._protocol
        if protocol is None or protocol.state is not State.OPEN:
            return
        text = message.get("text")
        if text is not None:
            protocol.send_text(text.encode())
        else:
            protocol.send_binary(message["bytes"])
        self._flush()
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._wire.drain()
        except TimeoutError:
            self._wire.fail(Late("it takes no more"))

    async def receive(self) -> dict[str, Any]:
        """The next message, as ASGI sends one; in the end `websocket.close` with the port's code."""
        while not self._messages:
            if self._over is not None:
                code, reason = self._over
                return {"type": "websocket.close", "code": code, "reason": reason}
            try:
                await self._wait()
            except UpstreamFailed:
                self._over = self._over or (BAD_GATEWAY, "the connection to the port broke off")
        message, size = self._messages.popleft()
        self._held -= size
        self._read_on()
        return message

    async def close(self, code: int, reason: str) -> None:
        """Tell the port that the client has gone, with its code; then cut the connection."""
        protocol = self._protocol
        self._unread = True
        if protocol is not None and protocol.state is State.OPEN:
            protocol.send_close(code if code in _CLOSABLE else GOING_AWAY, reason[:100])
            self._flush()
            self._read_on()
            try:
                async with asyncio.timeout(CLOSE_S):
                    while self._over is None:
                        await self._wait()
            except (TimeoutError, UpstreamFailed):
                pass
        self.cut()

    def cut(self) -> None:
        self._unparsed = _NOTHING
        self._wire.close()

    def _take(self, data: bytes) -> None:
        protocol = self._protocol
        if protocol is None:
            self._wire.fail(Broken("it speaks before it is asked"))
            return
        if self._answer is None and data:
            data = self._bounded(data)
            if not data:
                return
        if data:
            self._unparsed = memoryview(data)
            self._parse()
            return
        protocol.receive_eof()
        self._see(protocol)
        self._over = self._over or (ABNORMAL, "")
        self._wake()

    def _bounded(self, data: bytes) -> bytes:
        """What may be parsed of the answer to the handshake: no head before all of it is there, within bounds that the
        parser does not have."""
        self._answer_bytes += len(data)
        if self._answer_bytes > HEAD_BYTES_MAX + WIRE_BYTES:
            self._wire.fail(Broken("the answer to the handshake is too large"))
            return b""
        head = self._head
        if head is None:
            return data  # the body of a refusal
        head += data
        end = head.find(_HEAD_END, max(0, len(head) - len(data) - len(_HEAD_END) + 1))
        if end < 0:
            return b""
        if end > HEAD_BYTES_MAX or head.count(b"\n", 0, end) > HEADERS_MAX:
            self._wire.fail(Broken("the head of the answer is too large"))
            return b""
        self._head = None
        return bytes(head)

    def _parse(self) -> None:
        """What a turn allows of what was read, and no more than somebody takes; meanwhile nothing is read."""
        self._turn = None
        protocol = self._protocol
        assert protocol is not None
        while self._unparsed and len(protocol.events) < FRAMES_PER_TURN:
            piece, self._unparsed = self._unparsed[:PIECE_BYTES], self._unparsed[PIECE_BYTES:] or _NOTHING
            protocol.receive_data(bytes(piece))
        self._see(protocol)
        if self._unparsed or self._is_full:
            self._wire.pause()
            self._read_on()
        else:
            self._wire.resume()
        self._wake()

    @property
    def _is_full(self) -> bool:
        """Whether no more is to be taken of the port: the client has not taken what came before, or it is over."""
        return self._over is not None or (self._held >= HELD_BYTES and not self._unread)

    def _read_on(self) -> None:
        if self._is_full or self._turn is not None:
            return
        if self._unparsed:
            self._turn = self._loop.call_soon(self._parse)
        else:
            self._wire.resume()

    def _see(self, protocol: ClientProtocol) -> None:
        """What the protocol has understood."""
        idle = 0
        for event in protocol.events_received():
            if isinstance(event, Response):
                self._answer = event
            elif isinstance(event, Frame):
                idle += event.opcode >= Opcode.CLOSE or not (event.data or event.fin)
                self._take_frame(event)
        if idle and self._is_flood(idle):
            self._over = self._over or (FLOOD, "too many frames without data")
            protocol.fail(FLOOD, "too many frames without data")
        self._answer_port(protocol)
        if self._answer is None and protocol.handshake_exc is not None:
            self._wire.fail(Broken(f"the answer is no handshake: {protocol.handshake_exc}"))
        elif protocol.close_rcvd is not None or protocol.parser_exc is not None:
            said = protocol.close_rcvd or protocol.close_sent
            self._over = self._over or ((ABNORMAL, "") if said is None else (said.code, said.reason))

    def _is_flood(self, idle: int) -> bool:
        now = self._loop.time()
        if now - self._idle_since >= 1:
            self._idle_frames, self._idle_since = 0, now
        self._idle_frames += idle
        return self._idle_frames > IDLE_FRAMES_PER_S

    def _take_frame(self, frame: Frame) -> None:
        if self._unread or frame.opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
            return  # the protocol sees to it
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._kind = frame.opcode
            self._parts = frame.data
        else:
            joined = self._parts if isinstance(self._parts, bytearray) else bytearray(self._parts)
            joined += frame.data
            self._parts = joined
        if not frame.fin:
            return
        whole, self._parts = bytes(self._parts), b""
        message: dict[str, Any] = {"type": "websocket.send", "bytes": whole}
        if self._kind is Opcode.TEXT:
            try:
                message = {"type": "websocket.send", "text": whole.decode()}
            except UnicodeDecodeError:
                self._over = (BAD_DATA, "not UTF-8")
                return
        self._messages.append((message, len(whole) + MESSAGE_BYTES))
        self._held += len(whole) + MESSAGE_BYTES

    def _answer_port(self, protocol: ClientProtocol) -> None:
        """While it does not read, it is owed but the last pong, which answers all pings before it (RFC 6455, 5.5.3)."""
        said = [data for data in protocol.data_to_send() if data]
        if said and self._wire.full and protocol.state is State.OPEN:
            self._pong = said[-1]
        elif said:
            self._wire.write(b"".join(said))

    def _pong_at_last(self) -> None:
        pong, self._pong = self._pong, b""
        if pong and self._protocol is not None and self._protocol.state is State.OPEN:
            self._wire.write(pong)

    def _flush(self) -> None:
        assert self._protocol is not None
        for data in self._protocol.data_to_send():
            if data:
                self._wire.write(data)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._wire.failure is not None:
            raise self._wire.failure
        if self._wire.closed:
            raise Broken("the connection is closed")
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._wire.failure is not None:
            raise self._wire.failure


async def relay(channel: Channel, receive: Receive, send: Send) -> None:
    """Both ways until one side is over; then the other is told with its code. Gone when the client reads no more."""
    code, reason = GOING_AWAY, ""

    async def from_client() -> None:
        nonlocal code, reason
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code, reason = message.get("code") or 1005, message.get("reason") or ""
                return
            with suppress(UpstreamFailed):  # the other direction says so
                await channel.send(message)
            if not (message.get("text") or message.get("bytes")):
                await asyncio.sleep(0)  # it waits for nobody, however many of them come

    async def from_port() -> None:
        taken = 0
        while True:
            taken += 1
            if taken % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
            message = await channel.receive()
            over = message["type"] == "websocket.close"
            try:
                async with asyncio.timeout(channel.idle_s):
                    await send(_told(message) if over else message)
            except TimeoutError:
                channel.cut()
                raise Gone from None
            if over:
                return

    tasks = {asyncio.create_task(from_client()), asyncio.create_task(from_port())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await channel.close(code, reason)


def _told(message: dict[str, Any]) -> dict[str, Any]:
    """A close with a code that may be sent: 1005 and 1006 only say that none was."""
    code = message["code"]
    if code == 1005:
        return message | {"code": 1000}
    return message if code in _CLOSABLE else message | {"code": BAD_GATEWAY, "reason": "the port hung up"}


def _refusal(error: Exception, answer: Response) -> Exception:
    if isinstance(error, InvalidStatus):
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.raw_items()
        ]
        return Denied(answer.status_code, headers, bytes(answer.body))
    if isinstance(error, InvalidHandshake):
        return Broken(f"the answer is no handshake: {error}")
    return Broken(f"the handshake failed: {type(error).__name__}")
