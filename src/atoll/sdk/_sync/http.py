# Made by scripts/unasync.py from ../_async/http.py: change that file, not this one.
"""Requests over the process's shared connections: httpcore2, which httpx2 stands on; `Api` makes them.

It is the layer that takes a request as it is: httpx2's own client on top of it doubles the time that one takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import httpcore2

from atoll.domain.errors import AtollError, DeadlineExceeded, TooLarge
from atoll.sdk._io import connections, read
from atoll.sdk.connections import CONNECT_TIMEOUT_S, SEND_TIMEOUT_S, Lane
from atoll.sdk.errors import ConnectionFailed

REPLY_BYTES_MAX = 256 * 2**20
BLOCK_BYTES = 1 << 20  # of a file, to and from its disk
# A second run of these does no harm, so that they may be sent again when a kept connection turns out to be dead.
_REPEATABLE = frozenset({"GET", "DELETE"})
_BROKEN = (httpcore2.NetworkError, httpcore2.RemoteProtocolError)
_FAILURES = (*_BROKEN, httpcore2.TimeoutException)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request; `timeout_s` bounds each wait for the server, None waits for ever."""

    method: str
    url: httpcore2.URL
    headers: list[tuple[bytes, bytes]]
    body: bytes | Upload
    timeout_s: float | None
    once: bool = False  # it has one effect however often it is sent

    def failed(self, error: Exception) -> AtollError:
        server = f"the Atoll server at {self.url.host.decode()}:{self.url.port}"
        if isinstance(error, (httpcore2.ReadTimeout, httpcore2.WriteTimeout)):
            waited = f"{self.timeout_s:g} s" if self.timeout_s is not None else "a long time"
            return DeadlineExceeded(f"{server} was silent for {waited}")
        return ConnectionFailed(f"no connection to {server}: {str(error) or type(error).__name__}")


class Body:
    """An answer that is read as it comes, once. Iterate to its end, or close it: then its connection is not kept."""

    def __init__(self, request: Request, response: httpcore2.Response, lane: Lane[httpcore2.ConnectionPool]) -> None:
        self.status = response.status
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        self._request = request
        self._response = response
        self._lane = lane

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except _FAILURES as error:
            raise self._request.failed(error) from error
        self.close()

    def blocks(self) -> Iterator[bytes]:
        """The same in pieces of BLOCK_BYTES or a little more, for disks."""
        pieces: list[bytes] = []
        size = 0
        for piece in self:
            pieces.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES:
                yield b"".join(pieces)
                pieces, size = [], 0
        if pieces:
            yield b"".join(pieces)

    def read(self, bytes_max: int = REPLY_BYTES_MAX) -> bytes:
        """All of it; TooLarge beyond `bytes_max`."""
        pieces: list[bytes] = []
        size = 0
        with self:
            for piece in self:
                pieces.append(piece)
                size += len(piece)
                if size > bytes_max:
                    raise TooLarge(f"the answer is longer than {bytes_max} bytes")
        return b"".join(pieces)

    def close(self) -> None:
        self._lane.users.discard(self._request)
        self._response.close()


def send(request: Request) -> Body:
    """Send a request and read its answer's head. ConnectionFailed, DeadlineExceeded."""
    lane = connections(request.url.scheme == b"https")
    lane.users.add(request)
    timeouts = {"connect": CONNECT_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S, "write": SEND_TIMEOUT_S}
    ours = httpcore2.Request(
        request.method,
        request.url,
        headers=request.headers,
        content=request.body,
        extensions={"timeout": {**timeouts, "read": request.timeout_s}},
    )
    again = request.once or request.method in _REPEATABLE
    while True:
        try:
            return Body(request, lane.pool.handle_request(ours), lane)
        except BaseException as error:
            if again and isinstance(error, _BROKEN):
                again = False
                continue
            lane.users.discard(request)
            if isinstance(error, _FAILURES):
                raise request.failed(error) from error
            raise


class Upload:
    """A request body that is read from a file: `size` bytes, or chunked to its end when that is None."""

    def __init__(self, file: IO[bytes], size: int | None) -> None:
        self._file = file
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        left = self.size
        while left is None or left > 0:
            data = read(self._file, BLOCK_BYTES if left is None else min(left, BLOCK_BYTES))
            if not data:
                if left is None:
                    return
                raise EOFError("the file became shorter while it was sent")
            yield data
            if left is not None:
                left -= len(data)
