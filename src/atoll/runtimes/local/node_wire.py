"""One server's connection to the node: a request a line, an answer a line with the request's `n`, events in between."""

from __future__ import annotations

import json
import socket

from atoll.sidekick.loop import READ, WRITE, Loop
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reply = Callable[[dict[str, Any]], None]
    Operation = Callable[[dict[str, Any], Reply], None]

MAX_LINE_BYTES = 8 * 2**20
READY = b"ready\n"  # what a node says on stdout once it serves
BUSY = b"busy\n"  # ... or when another one of its data folder is there, perhaps only just about to end


class Client:
    """`operations` maps a request's `op` to what does it; `on_close` is called once."""

    def __init__(
        self, loop: Loop, sock: socket.socket, operations: dict[str, Operation], on_close: Callable[[Client], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._operations = operations
        self._on_close = on_close
        self._in = bytearray()
        self._out = bytearray()
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._ready)

    def send(self, message: dict[str, Any]) -> None:
        if self._sock.fileno() < 0:
            return
        self._out += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._flush()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE and self._sock.fileno() >= 0:
            self._read()

    def _flush(self) -> None:
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._loop.watch(self._sock.fileno(), READ | (WRITE if self._out else 0), self._ready)

    def _read(self) -> None:
        try:
            data = self._sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        if not data or len(self._in) > MAX_LINE_BYTES:
            self._close()
            return
        while (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            self._handle(json.loads(line))

    def _handle(self, request: dict[str, Any]) -> None:
        number = request["n"]

        def reply(answer: dict[str, Any]) -> None:
            self.send({"n": number, **answer})

        try:
            self._operations[request["op"]](request, reply)
        except Refused as refused:
            reply({"error": {"code": refused.code, "message": refused.message}})
        except Exception as error:  # one request's trouble must not end everybody's node
            reply({"error": {"code": "internal", "message": f"{type(error).__name__}: {error}"}})

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._on_close(self)
