"""uvicorn's WebSocket protocol with the bounds that it lacks; `serving` hands it to uvicorn.

What is bounded: empty fragments of a message, frames in a turn of the event loop, frames that carry nothing, pongs that
wait to be written, and how long a peer that vanished is believed in.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.transports import BaseTransport
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11
from websockets.frames import Frame, Opcode

from atoll.surfaces.extensions import END, LOST
from atoll.surfaces.http_turns import HEAD_BYTES_MAX

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

# websockets parses the head of an upgrade once more, after `Http`, whose bounds are to be the only ones.
http11.MAX_LINE_LENGTH = 2 * HEAD_BYTES_MAX
http11.MAX_NUM_HEADERS = HEAD_BYTES_MAX


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
        give_up_on_the_silent(transport)

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


def give_up_on_the_silent(transport: BaseTransport) -> None:
    """End the connection once the peer's machine has not taken what was sent to it for `PEER_GONE_MS`."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_GONE_MS)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
