"""uvicorn's HTTP protocol with the bounds that it lacks; `serving` hands it to uvicorn.

What is bounded: the head and the trailers of a request in time (`http_turns` has their bytes), how long the rest of a
body is read that nobody asked for, and how long an answer waits for a client that takes nothing of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from asyncio.transports import BaseTransport
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from atoll.surfaces.extensions import ANSWER, END, GONE, LASTS
from atoll.surfaces.http_turns import HttpInTurns
from atoll.surfaces.websocket_transport import LINGER_S, WebSocket, give_up_on_the_silent

if TYPE_CHECKING:
    from atoll.surfaces.crowd import Crowd

HEAD_S = 15.0  # for a whole request head, for the first one to begin, and for trailers
REST_S = 5.0  # for the rest of a body that was not read before the answer
UNREAD_S = 60.0  # at most twice as long may an answer wait for a client that takes no byte of it

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
        give_up_on_the_silent(self.transport)

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


def _unacknowledged(transport: BaseTransport) -> int:
    """Bytes that the system holds until the client takes them. It takes more of ours in large steps only."""
    sock = transport.get_extra_info("socket")
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
