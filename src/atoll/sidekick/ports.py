"""Ports: a byte pipe from a client to a port on the sandbox's own loopback, or a connection to it handed over."""

from __future__ import annotations

import errno
import socket
import struct
import time

from atoll.sidekick.connection import Connection
from atoll.sidekick.loop import READ, WRITE
from atoll.sidekick.protocol import RESULT, Refused, json_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.sidekick.loop import Loop
    from atoll.sidekick.operations import Sidekick

CONNECT_S = 5.0
PIECE_BYTES = 65_536
BOUND_BYTES = 65_536  # that wait for one side; more is not read from the other
MAX_PIPES = 1024
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def dial(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT {} once connected; from then on the connection carries the port's bytes, both ways, unframed.

    With `pass`: RESULT {passed} with the connected socket itself beside it (SCM_RIGHTS), and that was all.
    """
    _dial(sidekick, connection, request, quiet=False)


def probe(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """The same for who only looks whether a server is well: it is no use of the sandbox."""
    _dial(sidekick, connection, request, quiet=True)


def _dial(sidekick: Sidekick, connection: Connection, request: dict[str, Any], *, quiet: bool) -> None:
    port = request.get("port")
    if not isinstance(port, int) or not 0 < port < 65_536:
        raise Refused("bad_request", "port: expected a number from 1 to 65535", "port")
    if port in sidekick.gates.ports:  # whoever comes from outside would pass for a program of the sandbox's
        raise Refused("unavailable", f"port {port} is the sandbox's way to the server, and nobody's way in")
    if sidekick.pipes + sidekick.probes >= MAX_PIPES:
        raise Refused("unavailable", f"at most {MAX_PIPES} connections to ports at once")
    dialling = _Dialling(sidekick, connection, port, quiet=quiet)
    dialling.hands_over = request.get("pass") is True
    dialling.try_next()


class _Dialling:
    """A connection to a port that is not there yet: a program that does not accept must not hold up the others."""

    def __init__(self, sidekick: Sidekick, connection: Connection, port: int, *, quiet: bool) -> None:
        self._sidekick = sidekick
        self._quiet = quiet
        self.hands_over = False
        self._connection = connection
        self._port = port
        self._left = list(_LOOPBACK)
        self._upstream: socket.socket | None = None
        self._timer = sidekick.loop.after(CONNECT_S, self._refuse)
        self._count(1)
        connection.pause()
        connection.when_closed(self._give_up)

    def try_next(self) -> None:
        """The next address; it is over when there is none."""
        while self._left:
            family, host = self._left.pop(0)
            try:
                upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            except OSError:
                continue
            number = upstream.connect_ex((host, self._port))
            if number == 0:
                self._connected(upstream)
                return
            if number == errno.EINPROGRESS:
                self._upstream = upstream
                self._sidekick.loop.watch(upstream.fileno(), WRITE, lambda _events: self._told())
                return
            upstream.close()
        self._refuse()

    def _told(self) -> None:
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        self._sidekick.loop.forget(upstream.fileno())
        if upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            self._connected(upstream)
        else:
            upstream.close()
            self.try_next()

    def _connected(self, upstream: socket.socket) -> None:
        self._timer.cancel()
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client, early = self._connection.detach()
        if self.hands_over:
            _hand_over(client, upstream)
            self._ended()
            return
        Pipe(self._sidekick.loop, client, upstream, early, {}, self._ended)

    def _count(self, more: int) -> None:
        if self._quiet:
            self._sidekick.probes += more
        else:
            self._sidekick.pipes += more

    def _ended(self) -> None:
        self._count(-1)
        if not self._quiet:
            self._sidekick.processes.last_active = time.monotonic()

    def _refuse(self) -> None:
        self._drop_upstream()
        self._connection.refuse(Refused("unavailable", f"nothing listens on port {self._port} in the sandbox"))

    def _give_up(self) -> None:
        """Refused, or the client is gone."""
        self._timer.cancel()
        self._count(-1)
        self._drop_upstream()

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._sidekick.loop.forget(self._upstream.fileno())
            self._upstream.close()
            self._upstream = None


def _hand_over(client: socket.socket, upstream: socket.socket) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", upstream.fileno()))
    try:
        client.sendmsg([json_frame(RESULT, {"passed": True})], [rights])
    except OSError:
        pass  # nobody is there, or takes nothing: it learns that by the end of the stream
    finally:
        upstream.close()
        client.close()


class Pipe:
    """Bytes both ways between two sockets, half-closes kept, until both sides are done."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        upstream: socket.socket,
        early: bytes,
        answer: dict[str, Any],
        ended: Callable[[], None],
    ) -> None:
        """`answer` goes to the client before any byte, `early` came from it before."""
        self._loop = loop
        self._when_ended = ended
        self._sides = (client, upstream)
        for side in self._sides:
            side.setblocking(False)
        # for each side: what waits to be written to it, and whether its own input has ended
        self._waiting = (bytearray(json_frame(RESULT, answer)), bytearray(early))
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
        self._when_ended()
