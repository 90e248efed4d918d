"""Ports: a byte pipe from a client to a port on the sandbox's own loopback."""

from __future__ import annotations

import errno
import socket

from atoll.sidekick.connection import Connection
from atoll.sidekick.loop import READ, WRITE, Loop
from atoll.sidekick.protocol import RESULT, Refused, json_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.sidekick.operations import Sidekick

CONNECT_S = 5.0
PIECE_BYTES = 262_144
BOUND_BYTES = 524_288


def dial(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT {} once connected; from then on the connection carries the port's bytes, both ways, unframed."""
    port = request.get("port")
    if not isinstance(port, int) or not 0 < port < 65_536:
        raise Refused("bad_request", "port: expected a number from 1 to 65535", "port")
    upstream = _connect(port)
    client, early = connection.detach()
    Pipe(sidekick.loop, client, upstream, early)


def _connect(port: int) -> socket.socket:
    # loopback answers at once: no need to wait for it on the loop
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError:
            continue
        upstream.settimeout(CONNECT_S)
        try:
            upstream.connect((host, port))
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return upstream
        except OSError as error:
            upstream.close()
            if error.errno not in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL):
                break
    raise Refused("unavailable", f"nothing listens on port {port} in the sandbox")


class Pipe:
    """Bytes both ways between two sockets, half-closes kept, until both sides are done."""

    def __init__(self, loop: Loop, client: socket.socket, upstream: socket.socket, early: bytes) -> None:
        self._loop = loop
        self._sides = (client, upstream)
        for side in self._sides:
            side.setblocking(False)
        # for each side: what waits to be written to it, and whether its own input has ended
        self._waiting = (bytearray(json_frame(RESULT, {})), bytearray(early))
        self._ended = [False, False]
        self._shut = [False, False]
        self._open = True
        for number in (0, 1):
            self._flush(number)

    def _ready(self, number: int, events: int) -> None:
        if events & WRITE:
            self._flush(number)
        if self._open and events & ~WRITE and not self._ended[number]:
            self._read(number)
        elif self._open and events & ~(READ | WRITE):
            self._close()  # the side is gone and nothing more comes from it

    def _read(self, number: int) -> None:
        try:
            data = self._sides[number].recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        if data:
            self._waiting[1 - number].extend(data)
        else:
            self._ended[number] = True
        self._flush(1 - number)

    def _flush(self, number: int) -> None:
        """Write what waits for this side; pass the other side's end on once all is written."""
        waiting = self._waiting[number]
        try:
            while waiting:
                del waiting[: self._sides[number].send(waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        if not waiting and self._ended[1 - number] and not self._shut[number]:
            self._shut[number] = True
            try:
                self._sides[number].shutdown(socket.SHUT_WR)
            except OSError:
                pass
        if all(self._shut):
            self._close()
            return
        self._rewatch()

    def _rewatch(self) -> None:
        for number in (0, 1):
            events = WRITE if self._waiting[number] else 0
            if not self._ended[number] and len(self._waiting[1 - number]) < BOUND_BYTES:
                events |= READ
            side = self._sides[number]
            if events or not self._ended[number]:
                self._loop.watch(side.fileno(), events, lambda got, number=number: self._ready(number, got))
            else:
                self._loop.forget(side.fileno())

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        for side in self._sides:
            self._loop.forget(side.fileno())
            side.close()
