"""Link: the connection of one operation, in the child that carries it out: frames in and out, blocking."""

from __future__ import annotations

import socket
import struct

from atoll.sidekick.keeper_wire import PIECE_BYTES
from atoll.sidekick.protocol import DATA, END, ERROR, HEADER, MAX_FRAME_BYTES, RESULT, Refused, json_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STALL_S = 120  # a client that neither reads nor writes for so long is given up
LINGER_S = 5
DISCARD_BYTES = 1 << 18


class Gone(Exception):
    """The client has hung up, or does nothing any more."""


class Link:
    """`received` is what came after the request."""

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._sock = sock
        self._early = memoryview(received)
        self._out = bytearray()
        sock.setblocking(True)
        self._set_patience(STALL_S)

    def read(self) -> tuple[int, bytearray]:
        """The next frame."""
        kind, size = HEADER.unpack(self._exactly(HEADER.size))
        if size > MAX_FRAME_BYTES:
            raise Refused("too_large", f"a frame holds at most {MAX_FRAME_BYTES} bytes")
        return kind, self._exactly(size)

    def read_data(self) -> bytearray | None:
        """The payload of the next DATA frame; None at END."""
        kind, payload = self.read()
        if kind == DATA:
            return payload
        if kind != END:
            raise Refused("bad_request", f"expected DATA or END, not frame {kind:#x}")
        return None

    @property
    def buffered(self) -> int:
        """Bytes of the DATA frame that is being filled."""
        return len(self._out)

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Put it into the DATA frame that is being filled; `flush` when that is full."""
        self._out += data
        if len(self._out) >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, bytearray()
            self.send(out)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """DATA at once, in as many frames as it needs."""
        view = memoryview(data)
        for at in range(0, len(view), MAX_FRAME_BYTES):
            piece = view[at : at + MAX_FRAME_BYTES]
            self._send(HEADER.pack(DATA, len(piece)))
            self._send(piece)

    def end(self) -> None:
        self.flush()
        self._send(HEADER.pack(END, 0))

    def result(self, value: Any) -> None:
        self.flush()
        self._send(json_frame(RESULT, value))

    def refuse(self, refused: Refused) -> None:
        """Tell it, and let the client finish what it was saying: to close on it would lose our answer."""
        value = {"code": refused.code, "message": refused.message, "field": refused.field}
        try:
            self._send(json_frame(ERROR, value))
            self._sock.shutdown(socket.SHUT_WR)
            self._set_patience(LINGER_S)
            while self._sock.recv(DISCARD_BYTES):
                pass
        except (OSError, Gone):
            pass

    def _send(self, data: bytes | memoryview) -> None:
        try:
            self._sock.sendall(data)
        except OSError:
            raise Gone from None

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        at = 0
        if self._early:
            at = min(size, len(self._early))
            view[:at] = self._early[:at]
            self._early = self._early[at:]
        while at < size:
            try:
                received = self._sock.recv_into(view[at:], size - at, socket.MSG_WAITALL)
            except OSError:
                raise Gone from None
            if received == 0:
                raise Gone
            at += received
        return data

    def _set_patience(self, seconds: int) -> None:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
