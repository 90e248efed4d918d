"""uvicorn's HTTP and WebSocket protocols with the bounds that they lack; `serve` hands them to uvicorn.

What is bounded: the head and the trailers of a request in time (`http_turns` has their bytes), how long the rest of a
body is read that nobody asked for, how long an answer waits for a client that takes nothing of it, empty fragments of a
message, frames in a turn of the event loop, frames that carry nothing, pongs that wait to be written, and how long a
peer that vanished is believed in.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from asyncio.transports import BaseTransport
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11
from websockets.frames import Frame, Opcode

from atoll.surfaces.http_turns import HEAD_BYTES_MAX, HttpInTurns

if TYPE_CHECKING:
    from atoll.surfaces.crowd import Crowd

HEAD_S = 15.0  # for a whole request head, for the first one to begin, and for trailers
REST_S = 5.0  # for the rest of a body that was not read before the answer
UNREAD_S = 60.0  # at most twice as long may an answer wait for a client that takes no byte of it
EMPTY_FRAGMENTS_MAX = 10_000  # of one message: they would be free otherwise
IDLE_FRAMES_PER_S = 2_000  # control frames and frames without data, which carry nothing, from one peer
FRAMES_PER_TURN = 256  # of one connection, in one turn of the event loop
PIECE_BYTES = 6 * FRAMES_PER_TURN  # that are parsed at a time: the smallest frame has six bytes
MESSAGES_PER_TURN = 16  # that a handler is given before the others have their turn
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 15.0  # so that a peer that vanished is noticed before the second ping
PEER_GONE_MS = 40_000  # bytes that the peer's machine has not taken for so long end the connection
LINGER_S, QUIET_S = 2.0, 0.2  # that a peer who broke the rules has to read why, in all and after its last bytes
CLOSE_BAD_DATA, CLOSE_FLOOD, CLOSE_TOO_LARGE, CLOSE_RESTART = 1007, 1008, 1009, 1012
LOST = "atoll.lost"  # in a WebSocket's extensions: an Event, set when the connection is gone, read or not
END = "atoll.end"  # in every scope's extensions: ends the connection, with a close code and a reason; whether it could

# websockets parses the head of an upgrade once more, after `Http`, whose bounds are to be the only ones.
http11.MAX_LINE_LENGTH = 2 * HEAD_BYTES_MAX
http11.MAX_NUM_HEADERS = HEAD_BYTES_MAX


GONE = "atoll.gone"  # in a request's extensions: takes what is to be called when its connection is lost, or None


ANSWER = "atoll.answer"  # in a request's extensions: answers it in one step, as `Http.answer` says
LASTS = "atoll.lasts"  # in a request's extensions: says that its answer has no end, as `Http.lasts` does


_BODILESS = (204, 304)


class BadHead(Exception):
    """Raised into the parser, which then calls `send_400_response`."""


class Http(HttpInTurns):
    """HTTP/1.1 in which whatever is waited for from the client has an end: a head, the rest of a body, trailers, and
    that it reads."""

    _deadline: asyncio.TimerHandle | None = None
    _when_gone: Callable[[], None] | None = None
    _chunk_begun = False  # of which no data has come; the last one has trailers in its place
    _look: asyncio.TimerHandle | None = None  # at what waits to be written
    _unread_bytes: int | None = None  # at the last look

    def __init__(self, *args: Any, crowd: Crowd | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._crowd = crowd

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_in(HEAD_S)
        if self._crowd is not None and self.client is not None:
            self._crowd.join(transport, self.client[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        if self._look is not None:
            self._look.cancel()
        if self._crowd is not None:
            self._crowd.leave(self.transport)
        super().connection_lost(exc)
        if self._when_gone is not None:
            self._when_gone()

    def take(self, data: bytes | bytearray) -> int:
        taken = super().take(data)
        # Any byte ends uvicorn's wait for the next request, also one that begins none.
        if self._deadline is None and self.timeout_keep_alive_task is None:
            waits = self._chunk_begun or (self.is_idle() and self.transport.get_protocol() is self)
            if waits and not self.transport.is_closing():
                self._end_in(HEAD_S)
        return taken

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: Any = {END: self.end, GONE: self.when_gone, ANSWER: self.answer, LASTS: self.lasts}
        self.scope["extensions"] = extensions
        if self._deadline is None:
            self._end_in(HEAD_S)

    def on_headers_complete(self) -> None:
        self._go_on()
        self._check_head()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # no upgrade
            self.cycle.transport = HeadWithBody(self.transport, self.loop)  # type: ignore[assignment]
        if self._crowd is not None:
            self._crowd.busy(self.transport)

    def on_chunk_header(self) -> None:
        self._chunk_begun = True

    def on_body(self, body: bytes) -> None:
        self._chunk_begun = False
        if self._deadline is not None and not self.is_idle():
            self._go_on()  # they were no trailers
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._chunk_begun = False
        super().on_message_complete()
        self._go_on()  # trailers, or the rest of a body that nobody asked for, came in time

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._look_until_read()
        elif not self.in_head:
            self._end_in(REST_S)
        if self._crowd is not None:
            self._crowd.rests(self.transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_until_read()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_bytes = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._look_until_read()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        assert isinstance(protocol, WebSocket)
        if self._crowd is not None:
            protocol.when_lost(partial(self._crowd.leave, self.transport))
        if not protocol.handshake_initiated:
            self.send_400_response(self.wrong)  # websockets refuses more than httptools, and says nothing

    def send_400_response(self, msg: str) -> None:
        if not self.in_head and self.cycle.response_started:
            self.end(0, "")  # its answer was another
        else:
            super().send_400_response(self.wrong)

    def end(self, _code: int, _reason: str) -> bool:
        """Hang up; to what answers the request the client has gone."""
        self.transport.close()
        self.loop.call_later(LINGER_S, self.transport.abort)  # where the client does not read what is on its way
        return True

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Whoever streams without reading hears of it so: what is sent then is dropped in silence."""
        self._when_gone = call
        if call is not None and self.transport.is_closing():
            call()

    def lasts(self) -> None:
        """A client whose machine vanished is given up in a minute, not in the quarter of an hour that TCP takes. So is
        one that reads nothing for so long: only for answers that can be asked for again from where they broke off."""
        _give_up_on_the_silent(self.transport)

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """The whole answer in one write, for who has the parsed headers of another's, with the body's length among them
        where there is a body. False, and nothing done, where that cannot be: the ordinary way can."""
        cycle = self.cycle
        if cycle.response_started or cycle.disconnected or self.flow.write_paused or not cycle.keep_alive:
            return False
        if status not in _BODILESS and not any(name == b"content-length" for name, _ in headers):
            return False
        lines = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n", body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        self.transport.write(b"".join(lines))
        cycle.on_response()
        return True

    def _check_head(self) -> None:
        """Refuses all but one Host (RFC 9112, 3.2), and an upgrade that has a body."""
        assert self.parser is not None
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refuse("A request has one Host header.")
        if self.parser.should_upgrade() and self._should_upgrade():
            has_body = b"transfer-encoding" in names or any(
                name == b"content-length" and int(value) for name, value in self.headers
            )
            if has_body:
                self._refuse("An upgrade has no body.")

    def _refuse(self, why: str) -> NoReturn:
        self.wrong = why
        raise BadHead

    def _end_in(self, seconds: float) -> None:
        self._go_on()
        self._deadline = self.loop.call_later(seconds, self._late)

    def _go_on(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.end(0, "")

    def _look_until_read(self) -> None:
        if self._look is None and self.transport.get_write_buffer_size():
            self._look = self.loop.call_later(UNREAD_S, self._look_again)

    def _look_again(self) -> None:
        """Hangs up where nothing was read since the last look. While so much waits, nothing is added to it."""
        self._look = None
        left = self.transport.get_write_buffer_size() + _unacknowledged(self.transport)
        if not (self.flow.write_paused or self.transport.is_closing()):
            return
        if self._unread_bytes is not None and left >= self._unread_bytes:
            self.transport.abort()
            return
        self._unread_bytes = left
        self._look_until_read()


class HeadWithBody:
    """A transport for one answer, whose head waits for the body if that comes at once: one write wakes the client
    once. It has what uvicorn asks for."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if not self._begun:
            self._begun, self._head = True, data
            self._loop.call_soon(self._flush)
        elif self._head is not None:
            data, self._head = self._head + data, None
            self._transport.write(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        head, self._head = self._head, None
        if head is not None and not self._transport.is_closing():
            self._transport.write(head)


class WebSocket(WebSocketsSansIOProtocol):
    """RFC 6455 without extensions, with backpressure for pings too.

    One read may hold 43,000 frames. So it is parsed in pieces, no more than a few hundred frames in a turn of the loop
    and none while messages wait for the handler; meanwhile nothing is read.
    """

    _pong: bytes | None = None
    _failed_at: float | None = None
    _empty_fragments = 0
    _unparsed: bytes | memoryview = b""
    _turn: asyncio.Handle | None = None
    _frames = 0  # in this turn
    _messages = 0  # that the handler took since others had their turn
    _idle_frames = 0  # in the second that began at `_idle_since`
    _idle_since = 0.0
    _lost: asyncio.Event
    _when_lost: Callable[[], None] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._lost = asyncio.Event()
        _give_up_on_the_silent(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._unparsed = b""
        super().connection_lost(exc)
        if self._when_lost is not None:
            self._when_lost()

    def when_lost(self, call: Callable[[], None]) -> None:
        """Calls it once the connection is gone."""
        self._when_lost = call

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.tasks and hasattr(self, "scope"):  # absent when the handshake was refused
            self.scope["extensions"] |= {LOST: self._lost, END: self.end}  # type: ignore[operator]

    def end(self, code: int, reason: str) -> bool:
        """Send a close frame; to the handler the client has gone. False before the upgrade."""
        if not self.handshake_complete:
            return False
        if self.close_sent or self.conn.close_sent is not None:
            return True
        self.stop_keepalive()
        self._lost.set()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)
        return True

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # refused, which is complete too: else uvicorn logs an error
        if self._unparsed and not self.read_paused:  # a close reads on
            self._in_another_turn()

    async def receive(self) -> Any:
        self._messages += 1
        if self._messages > MESSAGES_PER_TURN:
            self._messages = 0
            await asyncio.sleep(0)  # messages that wait are had without waiting, and may cost the handler no wait
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            if self._unparsed:
                self._in_another_turn()
            elif not self.transport.is_closing():
                self.transport.resume_reading()
        return message

    def handle_ping(self) -> None:
        answer = b"".join(self.conn.data_to_send())
        if not answer:
            return  # the ping before it was answered for both
        if self.writable.is_set():
            self.transport.write(answer)
        else:
            self._pong = answer  # the last one answers all before it

    def resume_writing(self) -> None:
        if self._pong is not None and not self.transport.is_closing():
            pong, self._pong = self._pong, None
            self.transport.write(pong)
        super().resume_writing()

    def handle_cont(self, event: Frame) -> None:
        """Fragments are joined as they come: kept apart, small ones would cost far more than their bytes."""
        self._empty_fragments += not event.data
        if self._empty_fragments > EMPTY_FRAGMENTS_MAX:
            self._refuse(CLOSE_TOO_LARGE, "too many fragments")
            return
        joined = self.frames[0] if isinstance(self.frames[0], bytearray) else bytearray(self.frames[0])
        joined += event.data
        self.frames = [bytes(joined) if event.fin else joined]  # type: ignore[list-item]
        if event.fin:
            self._empty_fragments = 0
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(self.frames[0]):
            self._refuse(CLOSE_BAD_DATA, "not UTF-8")  # uvicorn would log a traceback of it
            return
        super().send_receive_event_to_app()

    def _refuse(self, code: int, reason: str) -> None:
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    def data_received(self, data: bytes) -> None:
        if self._failed_at is not None:
            self._linger(self._failed_at)
        elif self._unparsed:  # read although it was paused: by a close, or by TLS
            self._unparsed = bytes(self._unparsed) + data
            self._in_another_turn()
        else:
            self._unparsed = memoryview(data)
            self._parse()

    def _in_another_turn(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()
        if self._turn is None:
            self._turn = self.loop.call_soon(self._parse)

    def _parse(self) -> None:
        """What a turn allows of what was read. The head of the handshake in one piece: the caller waits for it."""
        self._turn = None
        self._frames = 0
        while self._unparsed and not self.read_paused and self._failed_at is None:
            if self._frames >= FRAMES_PER_TURN:
                self._in_another_turn()
                return
            size = PIECE_BYTES if self.handshake_initiated else len(self._unparsed)
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            super().data_received(bytes(piece))
        if not (self._unparsed or self.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def handle_events(self) -> None:
        events = self.conn.events
        self._frames += len(events)
        idle = sum(isinstance(event, Frame) and (event.opcode >= Opcode.CLOSE or not event.data) for event in events)
        if idle and self._is_flood(idle):
            self.conn.events_received()
            self._refuse(CLOSE_FLOOD, "too many frames without data")
            return
        super().handle_events()

    def _is_flood(self, idle: int) -> bool:
        now = self.loop.time()
        if now - self._idle_since >= 1:
            self._idle_frames, self._idle_since = 0, now
        self._idle_frames += idle
        return self._idle_frames > IDLE_FRAMES_PER_S

    def handle_parser_exception(self) -> None:
        """Send the close frame, then read what is still coming for a while: closing with unread bytes would reset the
        connection, and the peer would never learn the code."""
        if self._failed_at is not None:
            return
        self._failed_at = self.loop.time()
        was_held, self._unparsed = bool(self._unparsed), b""
        if self.conn.close_sent is None:  # frames before the handshake was answered
            self.transport.abort()
            return
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        if self.read_paused or was_held:
            self.read_paused = False
            self.transport.resume_reading()
        self._linger(self._failed_at)

    def _linger(self, since: float) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        left_s = max(0.0, since + LINGER_S - self.loop.time())
        self.close_timer = self.loop.call_later(min(QUIET_S, left_s), self.transport.close)

    def keepalive_timeout(self) -> None:
        if self.read_paused or self._unparsed:
            # The pong may lie unread behind what the process has not taken: silence proves nothing. A machine that
            # is gone is noticed by TCP, whose acknowledgements do not wait for us.
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        # Who vanished does not read what waits to be written before the close frame either.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and self.conn.close_sent is None:
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CLOSE_RESTART})
            self.conn.send_close(CLOSE_RESTART, "service restart")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        super().shutdown()


def _unacknowledged(transport: BaseTransport) -> int:
    """Bytes that the system holds until the client takes them. It takes more of ours in large steps only."""
    sock = transport.get_extra_info("socket")
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]


def _give_up_on_the_silent(transport: BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_GONE_MS)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
