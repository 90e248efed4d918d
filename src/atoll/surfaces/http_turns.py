"""HTTP/1.1 that is parsed in turns: one request at a time, and of each read what a turn of the event loop allows.

httptools parses all that it is given, and keeps a header that has not ended. So it is given pieces, none of which holds
the end of one message and the beginning of the next. `transport.Http` builds on it.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024  # of a head; of what stands between the data of a chunked body, or after it; and held back
STEPS_PER_TURN = 256  # pieces that are parsed and chunks in them, of one connection, in one turn of the event loop
CHUNKED_PIECE_BYTES = 8 * 1024  # which hold 1,365 chunks at most
_END = b"\r\n\r\n"  # of every head and every chunked body


class Flow(FlowControl):
    """Reading stops while the application has not taken a body, or too much waits to be parsed."""

    _is_full = False
    _is_held = False

    def pause_reading(self) -> None:
        self._is_full = True
        super().pause_reading()

    def resume_reading(self) -> None:
        self._is_full = False
        if not self._is_held:
            super().resume_reading()

    def hold(self) -> None:
        self._is_held = True
        super().pause_reading()

    def let_go(self) -> None:
        self._is_held = False
        if not self._is_full:
            super().resume_reading()


class HttpInTurns(HttpToolsProtocol):
    """A request is parsed when the one before it is answered; trailers are read, and dropped."""

    _reading: Flow
    wrong = "Invalid HTTP request received."
    in_head = True  # from the end of a message on
    _body_left = 0  # of a body whose length was told
    _bare_bytes = 0  # of the head, or since a chunked body's last data
    _last = b""  # up to three bytes, which may be the beginning of an end
    _steps = 0  # in this turn
    _unparsed: bytearray
    _turn: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._reading = Flow(transport)
        self._unparsed = bytearray()

    def data_received(self, data: bytes) -> None:
        taken = 0 if self._unparsed else self.take(data)
        if taken < len(data):
            self._unparsed += memoryview(data)[taken:]
            self._hold()

    def take(self, data: bytes | bytearray) -> int:
        """Parses what this turn allows of it, and says how many bytes are done with."""
        self._steps = at = 0
        while at < len(data):
            if self._steps >= STEPS_PER_TURN or (self.in_head and not self.is_idle()):
                return at
            self._steps += 1
            end = self._end_of_piece(data, at)
            if self._bare_bytes > HEAD_BYTES_MAX:
                what = "head" if self.in_head else "trailer"
                self.wrong = f"The request's {what} is larger than {HEAD_BYTES_MAX} bytes."
                self.send_400_response(self.wrong)
                return len(data)
            super().data_received(data if end - at == len(data) else data[at:end])  # type: ignore[arg-type]
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return len(data)
            at = end
        return at

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # a trailer must not pass for what a proxy, or the head, has said
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.in_head = False
        self._bare_bytes = 0
        for name, value in self.headers:
            if name == b"content-length":
                self._body_left = int(value)

    def on_body(self, body: bytes) -> None:
        self._steps += 1
        self._bare_bytes = 0
        if not self.cycle.response_complete:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.in_head = True
        self._bare_bytes = self._body_left = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._unparsed:
            self._in_another_turn()

    def is_idle(self) -> bool:
        """Whether every request that came is answered."""
        return not self.cycle or self.cycle.response_complete

    def _end_of_piece(self, data: bytes | bytearray, at: int) -> int:
        """Where the piece ends that begins there. Only the last one of a message ends where the message does."""
        if self._body_left:
            size = min(self._body_left, len(data) - at)
            self._body_left -= size
            return at + size
        most = len(data) if self.in_head else min(len(data), at + CHUNKED_PIECE_BYTES)
        end = self._end_of_message(data, at, most)
        if end < 0:
            self._last = (self._last + data[max(at, most - 3) : most])[-3:]
            end = most
        else:
            self._last = b""
        self._bare_bytes += end - at
        return end

    def _end_of_message(self, data: bytes | bytearray, at: int, most: int) -> int:
        """The end of its head, or perhaps of its chunked body; below 0 where that is not in the data."""
        if self._last:  # it may have begun in the piece before
            found = (self._last + data[at : at + 3]).find(_END)
            if found >= 0:
                return at + found + len(_END) - len(self._last)
        found = data.find(_END, at, most)
        return found + len(_END) if found >= 0 else found

    def _hold(self) -> None:
        """Reading goes on for a while: only who reads notices that the client hung up."""
        if len(self._unparsed) > HEAD_BYTES_MAX:
            self._reading.hold()
        if not self.in_head or self.is_idle():  # else the answer goes on
            self._in_another_turn()

    def _in_another_turn(self) -> None:
        if self._turn is None:
            self._turn = self.loop.call_soon(self._parse_on)

    def _parse_on(self) -> None:
        self._turn = None
        if self.transport.is_closing():
            return
        del self._unparsed[: self.take(self._unparsed)]
        if len(self._unparsed) <= HEAD_BYTES_MAX:
            self._reading.let_go()
        if self._unparsed:
            self._hold()
