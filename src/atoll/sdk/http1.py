"""HTTP/1.1 answers, parsed by llhttp (httptools), and request heads; no input or output happens here.

The SDK's connections, sync and async, feed it; one parser serves one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

import httptools

HEAD_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class BrokenAnswer(Exception):
    """The server's bytes are not HTTP/1.1, or ended too early."""


class AnswerParser:
    """Takes bytes, gives `status`, `headers`, and body pieces in `pieces` until `done`."""

    __slots__ = ("_parser", "begun", "done", "head_bytes", "head_done", "headers", "keep_alive", "pieces", "status")

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.begun = False  # at least one byte came
        self.head_done = False
        self.done = False
        self.keep_alive = False
        self.head_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived; b"" is the end of the stream. BrokenAnswer when it makes no sense."""
        if not data:
            self._end()
            return
        self.begun = True
        if not self.head_done:
            self.head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise BrokenAnswer(f"the answer is not HTTP/1.1: {error}") from error
        if not self.head_done and self.head_bytes > HEAD_BYTES_MAX:
            raise BrokenAnswer(f"the answer's headers are longer than {HEAD_BYTES_MAX} bytes")

    def take(self) -> bytes:
        """The body bytes that came since the last call."""
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end(self) -> None:
        sized = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self.head_done or (sized and not self.done):
            raise BrokenAnswer("the connection ended in the middle of an answer")
        self.done = True

    # called by httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        if self.status < 200:  # 100 Continue and the like announce the real answer
            self.headers.clear()
            return
        self.done = True
        self.keep_alive = self._parser.should_keep_alive()


def target_of(path: str, /, *segments: str, **query: str | int | bool | None) -> str:
    """A request target: `path`, quoted segments, then the query values that are not None (true for True)."""
    target = path + "".join("/" + quote(segment, safe="") for segment in segments)
    pairs = [(name, "true" if value is True else str(value)) for name, value in query.items() if value is not None]
    return f"{target}?{urlencode(pairs, quote_via=quote, errors='surrogateescape')}" if pairs else target
