"""Upstream: one HTTP/1.1 connection to a port of a sandbox, and the answer that comes through it, piece by piece.

The pool keeps it between requests. Nothing that comes is trusted: an answer is parsed strictly, its head is bounded,
and so is whatever else carries nothing of a body; what comes after its end makes the connection useless.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

import httptools

from atoll.gateway.previews.failures import Broken, Late
from atoll.gateway.previews.wire import PIECE_BYTES, Wire

HEAD_BYTES_MAX = 128 * 1024
HEADERS_MAX = 256
HELD_BYTES = 131_072  # of an answer that nobody has taken yet, where no more is read
CHUNK_BYTES = 64  # that every piece counts for besides its own: those of one byte are held too
_BODILESS = frozenset({204, 304})

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Head:
    status: int = 0
    headers: Headers = field(default_factory=Headers)  # names in small letters


class Upstream:
    """`begin`, write the request, `head`, then `piece` until it says None."""

    def __init__(self, sock: socket.socket, *, first_byte_s: float, idle_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.wire = Wire(sock)
        self.wire.on_data = self._take
        self.wire.on_failure = self._wake
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._due = 0.0
        self.listening = False  # whether it is the client's turn to speak: then an answer is not late
        self._pieces: list[bytes] = []
        self._held = 0
        self._clean = True  # whether it may carry another request
        self._idle = True  # between two requests
        self.gone = False  # whether the client has left
        self.used = False  # whether it carried one before
        self.kept_at = 0.0
        self.wire.resume()

    # one exchange

    def begin(self, method: str) -> None:
        """What is written from now on is a request with this method."""
        self._bodiless = method == "HEAD"
        self._head = Head()
        self.begun = False  # whether any byte of an answer came
        self._bare_bytes = 0  # in a row that were none of a body: of heads, trailers, extensions of chunks
        self._headed = self._done = False
        self.measured = False  # whether the answer says how long it is, by itself
        self._idle = self._chunked = self.listening = False
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.used_before, self.used = self.used, True
        self.kept_at = 0.0

    async def head(self) -> Head:
        """The answer's status and headers, within `first_byte_s`. UpstreamFailed."""
        if not self._headed:
            await self._wait(self._first_byte_s)
        return self._head

    def heard(self) -> None:
        """Some of the request came: the answer's time begins now."""
        self.listening = False
        if not self._headed:
            self._due = self._loop.time() + self._first_byte_s

    async def piece(self) -> bytes | None:
        """More of the body, all that is there; None at its end. UpstreamFailed when it breaks off or is silent for
        `idle_s`."""
        while not self._pieces:
            if self._done:
                return None
            await self._wait(self._idle_s)
        data = self._taken()
        if not self._done:
            self.wire.resume()
        return data

    def whole(self) -> bytes | None:
        """The whole body, when all of it is there already."""
        return self._taken() if self._done else None

    def _taken(self) -> bytes:
        """In one, however small its chunks are: what follows costs by the piece."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return data

    @property
    def reusable(self) -> bool:
        """Whether it may carry another request, once this one is sent in whole."""
        return self._clean and not self.wire.closed and (self._idle or self._done)

    def keep(self) -> None:
        """Between two requests: whatever comes now makes it useless."""
        self._idle = True
        if self._bodiless:
            self._parser = None  # it does not know that HEAD has no body
        if self._pieces:
            self._pieces.clear()
        self._held = 0
        self.wire.resume()

    def lost(self) -> None:
        """The client has left."""
        self.gone = True
        self.close()

    def close(self) -> None:
        self._clean = False
        self.wire.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    # what the wire says

    def _take(self, data: bytes) -> None:
        if self._idle or self._done or self._parser is None:
            self._clean = False
            self.wire.close()
            return
        if not data:
            self._end_of_stream()
            return
        self.begun = True
        self._bare_bytes += len(data)
        if self._bare_bytes > HEAD_BYTES_MAX + PIECE_BYTES:
            self.wire.fail(Broken("what is no body of the answer is too large"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.wire.fail(Broken("it switches protocols, which nobody asked for"))
        except (httptools.HttpParserError, _Refusal) as error:
            if not (self._done and self._bodiless):
                self.wire.fail(Broken(f"the answer is no HTTP: {_cause(error)}"))
            self._clean = False

    def _end_of_stream(self) -> None:
        self._clean = False
        if self._headed and not (self.measured or self._chunked or self._done):
            self._done = True  # its end is the end of the connection
            self._wake()
        else:
            self.wire.fail(Broken("it closed the connection before the end of its answer"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float) -> None:
        if self.wire.failure is not None:
            raise self.wire.failure
        if self.wire.closed:
            raise Broken("the connection is closed")
        due = self._due = self._loop.time() + seconds
        if self._timer is None:
            self._timer_at, self._timer = due, self._loop.call_at(due, self._look)
        elif self._timer_at > due:
            self._timer.cancel()
            self._timer_at, self._timer = due, self._loop.call_at(due, self._look)
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self.wire.failure is not None:
            raise self.wire.failure
        if self.wire.closed and not self._done:
            raise Broken("the connection is closed")

    def _look(self) -> None:
        """One timer serves many waits: it is set anew when it finds that the one it was for is over."""
        self._timer = None
        if self._waiter is None:
            return
        if self.listening and not self._headed:
            self._due = self._loop.time() + self._first_byte_s
        if self._loop.time() >= self._due:
            self.wire.fail(Late("it did not answer in time"))
        else:
            self._timer_at, self._timer = self._due, self._loop.call_at(self._due, self._look)

    # what the parser says

    def on_message_begin(self) -> None:
        if self._done:
            self._clean = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:  # a trailer: there is no way to pass it on
            return
        headers = self._head.headers
        if len(headers) >= HEADERS_MAX:
            raise _Refusal("it has too many headers")
        name = name.lower()
        if name == b"content-length":
            self.measured = True
        elif name == b"transfer-encoding":
            self._chunked = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if status < 200:
            if status == 101:
                raise _Refusal("it switches protocols, which nobody asked for")
            self._head = Head()  # an interim answer: the real one follows
            self.measured = self._chunked = False
            return
        if status > 599:
            raise _Refusal(f"status {status}")
        self._head.status = status
        self._headed = True
        self._keeps = parser.should_keep_alive()
        if self._bodiless or status in _BODILESS:
            self._finish()
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self._done:
            self._clean = False
            return
        self._bare_bytes = 0
        self._pieces.append(body)
        self._held += len(body) + CHUNK_BYTES
        if self._held >= HELD_BYTES:
            self.wire.pause()
        self._wake()

    def on_message_complete(self) -> None:
        if self._headed and not self._done:
            self._finish()
            self._wake()

    def _finish(self) -> None:
        self._done = True
        self._clean = self._clean and self._keeps


class _Refusal(Exception):
    """Raised into the parser."""


def _cause(error: Exception) -> str:
    return str(error.__context__ or error)
