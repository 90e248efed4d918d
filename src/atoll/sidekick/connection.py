"""Connection: one client of the sidekick: reads its request, hands it to `operations`, writes the answer.

Input is read only while its consumer keeps up, output is buffered up to a bound: memory stays flat whatever a client
sends or does not read.
"""

from __future__ import annotations

import json
import socket

from atoll.sidekick.loop import GONE, READ, WRITE, Loop, Timer
from atoll.sidekick.protocol import (
    ERROR,
    HEADER,
    MAX_FRAME_BYTES,
    REQUEST,
    RESULT,
    Refused,
    frame,
    json_frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RECEIVE_BYTES = 262_144
OUT_BOUND_BYTES = 524_288
LINGER_S = 5.0


class Connection:
    """Frames in, frames out. A consumer takes `on_frame` and `on_writable` (room again), and says `when_closed`."""

    def __init__(self, loop: Loop, sock: socket.socket, request: Callable[[Connection, dict[str, Any]], None]) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._in = bytearray()
        self._out = bytearray()
        self._request: Callable[[Connection, dict[str, Any]], None] | None = request
        self._reading = True
        self._finishing = False
        self._lingers = False
        self._lingering: Timer | None = None
        self.closed = False  # for the consumer: nothing more comes or goes
        self.on_frame: Callable[[int, bytes], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self._on_close: Callable[[], None] | None = None
        sock.setblocking(False)
        self._watched = READ
        loop.watch(self._fd, READ, self._ready)
        self._ready(READ)  # the request is usually here already

    def send(self, kind: int, payload: bytes = b"") -> None:
        self._write(frame(kind, payload))

    def send_json(self, kind: int, value: Any) -> None:
        self._write(json_frame(kind, value))

    def finish(self, value: Any = None, *, still_sends: bool = False) -> None:
        """Answer, if there is something to answer, and close once it is on its way. A client that may still be sending
        is heard to its end: to close on it would lose what it has not read yet."""
        self._lingers = still_sends
        if value is not None:
            self.send_json(RESULT, value)
        self._finishing = True
        if not self._out:
            self._end()

    def refuse(self, refused: Refused) -> None:
        self.send_json(ERROR, {"code": refused.code, "message": refused.message, "field": refused.field})
        self.finish(still_sends=True)

    @property
    def room(self) -> bool:
        """Whether more may be written now; `on_writable` is called when there is room again."""
        return len(self._out) < OUT_BOUND_BYTES

    def pause(self) -> None:
        """Read no more until `resume`."""
        self._reading = False
        self._rewatch()

    def resume(self) -> None:
        if not self._reading and not self.closed:
            self._reading = True
            self._rewatch()
            self._take_frames()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Give the socket away, with what was read and not used: the loop no longer watches it."""
        self._loop.forget(self._fd)
        self._fd = -1
        self.closed = True
        return self._sock, bytes(self._in)

    def when_closed(self, call: Callable[[], None]) -> None:
        """Call it once the client is gone, or at once when it is gone already."""
        if self.closed:
            call()
        else:
            self._on_close = call

    def close(self) -> None:
        if self._fd < 0:
            return
        self._loop.forget(self._fd)
        self._fd = -1
        self._sock.close()
        if self._lingering is not None:
            self._lingering.cancel()
        self._let_go()

    def _let_go(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._on_close is not None:
            self._on_close()

    def _end(self) -> None:
        """Everything is sent."""
        if not self._lingers:
            self.close()
            return
        self._let_go()
        self._in.clear()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._lingering = self._loop.after(LINGER_S, self.close)
        self._loop.watch(self._fd, READ, self._ready)

    def _write(self, data: bytes) -> None:
        if self.closed:
            return
        if not self._out:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        self._rewatch()

    def _rewatch(self) -> None:
        if self.closed:
            return
        events = (READ if self._reading else 0) | (WRITE if self._out else 0)
        if events != self._watched:
            self._watched = events
            self._loop.watch(self._fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._out:
            self._flush()
        if self._fd >= 0 and events & (READ | GONE):
            self._receive()

    def _flush(self) -> None:
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._out:
            return
        self._rewatch()
        if self._finishing:
            self._end()
        elif self.on_writable is not None:
            self.on_writable()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if not self._finishing:  # else it comes too late to matter
            self._in += data
            self._take_frames()

    def _take_frames(self) -> None:
        while self._reading and not self._finishing and len(self._in) >= HEADER.size:
            kind, size = HEADER.unpack_from(self._in)
            if size > MAX_FRAME_BYTES:
                self.refuse(Refused("too_large", f"a frame holds at most {MAX_FRAME_BYTES} bytes"))
                return
            end = HEADER.size + size
            if len(self._in) < end:
                return
            payload = bytes(memoryview(self._in)[HEADER.size : end])
            del self._in[:end]
            try:
                self._take(kind, payload)
            except Refused as refused:
                self.refuse(refused)
            except Exception as error:  # one client's trouble must not end everybody's sandbox
                self.refuse(Refused("internal", f"{type(error).__name__}: {error}"))

    def _take(self, kind: int, payload: bytes) -> None:
        if self._request is None:
            if self.on_frame is not None:
                self.on_frame(kind, payload)
            return
        request, self._request = self._request, None
        if kind != REQUEST:
            raise Refused("bad_request", "the first frame must be a request")
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            raise Refused("bad_request", "the request is not JSON") from None
        if not isinstance(value, dict):
            raise Refused("bad_request", "the request is not a JSON object")
        request(self, value)  # type: ignore[arg-type]
