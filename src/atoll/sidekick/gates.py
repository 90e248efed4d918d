"""Gates: places inside where a program's connection or question is handed to the server, which waits by `accept`.

The sockets are made before the sandbox is anybody's; what comes while the server does not wait is kept by the kernel.
"""

from __future__ import annotations

import os
import socket
import struct

from atoll.sidekick.connection import Connection
from atoll.sidekick.loop import READ
from atoll.sidekick.ports import MAX_PIPES, Pipe
from atoll.sidekick.protocol import RESULT, Refused, json_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from atoll.sidekick.loop import Loop
    from atoll.sidekick.operations import Sidekick

API = "api"  # Atoll's own API, for a sandbox with a capability
MODEL = "model"  # the model gateway, for the sandbox of a task
OUT = "out"  # every TCP connection that leaves the loopback, sent here by the kernel
DNS = "dns"  # questions for names, in datagrams
STREAMS = (API, MODEL, OUT)
MODEL_PORT = 982  # on the loopback, in every runtime: programs are configured with it

MAX_WAITING = 64  # connections of the server that wait for somebody
MAX_QUESTIONS = 64  # at once
QUESTION_S = 12.0
_QUESTION_BYTES = 4096
_ANSWER_BYTES = 65_535
_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST
_ADDRESS = struct.Struct("!HH4s8x")
_LENGTH = struct.Struct("!H")
_PAUSE_S = 0.1
_AT_ONCE = 64  # then the others' turn comes: a flood must not hold up the loop


class Gates:
    """`sockets` by the name of their gate. They are watched only while the server waits."""

    def __init__(self, sidekick: Sidekick, sockets: dict[str, socket.socket]) -> None:
        self._sidekick = sidekick
        self._loop: Loop = sidekick.loop
        self._sockets = sockets
        self._waiting: list[Connection] = []
        self._watching = False
        self._questions = 0
        self.ports = frozenset(one.getsockname()[1] for one in sockets.values() if one.type == socket.SOCK_STREAM)
        for one in sockets.values():
            one.setblocking(False)

    def wait(self, connection: Connection) -> None:
        """The connection of a server that takes the next stream that comes."""
        if not self._sockets:
            raise Refused("conflict", "this sandbox has no gate")
        if len(self._waiting) >= MAX_WAITING:
            raise Refused("unavailable", f"at most {MAX_WAITING} connections wait at the gates")
        self._waiting.append(connection)
        connection.when_closed(lambda: self._left(connection))
        self._watch()

    def _left(self, connection: Connection) -> None:
        if connection in self._waiting:
            self._waiting.remove(connection)
            self._watch()

    def _watch(self) -> None:
        wanted = bool(self._waiting)
        if wanted == self._watching:
            return
        self._watching = wanted
        for name, one in self._sockets.items():
            if wanted:
                self._loop.watch(one.fileno(), READ, self._taker(name, one))
            else:
                self._loop.forget(one.fileno())

    def _taker(self, name: str, one: socket.socket) -> Callable[[int], None]:
        return lambda _events: self._ask(one) if name == DNS else self._take(name, one)

    def _take(self, name: str, listener: socket.socket) -> None:
        """A program has connected."""
        for _ in range(_AT_ONCE):
            if not self._waiting:
                return
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors: it stays readable, and asking again at once would take all the time
                self._loop.forget(listener.fileno())
                self._loop.after(_PAUSE_S, self._look_again)
                return
            if self._sidekick.streams >= MAX_PIPES:
                sock.close()
                continue
            told: dict[str, Any] = {"gate": name}
            if name == OUT:
                told["address"], told["port"] = _destination(sock)
            client, early = self._next()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sidekick.streams += 1
            Pipe(self._loop, client, sock, early, told, self._stream_ended)

    def _look_again(self) -> None:
        self._watching = False
        self._watch()

    def _stream_ended(self) -> None:
        self._sidekick.streams -= 1

    def _ask(self, datagrams: socket.socket) -> None:
        """A program has asked for a name."""
        for _ in range(_AT_ONCE):
            if not self._waiting:
                return
            try:
                question, sender = datagrams.recvfrom(_QUESTION_BYTES)
            except OSError:
                return
            if self._questions >= MAX_QUESTIONS or not question:
                continue  # it asks again, as all do whose datagrams may get lost
            client, _ = self._next()
            self._questions += 1
            _Question(self._loop, client, datagrams, sender, question, self._answered)

    def _answered(self) -> None:
        self._questions -= 1

    def _next(self) -> tuple[socket.socket, bytes]:
        connection = self._waiting.pop(0)
        given = connection.detach()
        self._watch()
        return given


class _Question:
    """One datagram on its way to the server as a stream, each message behind its length, and the answer back."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        datagrams: socket.socket,
        sender: Any,
        question: bytes,
        over: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._datagrams = datagrams
        self._sender = sender
        self._answer = bytearray()
        self._over: Callable[[], None] | None = over
        self._timer = loop.after(QUESTION_S, self._close)
        client.setblocking(False)
        loop.watch(client.fileno(), READ, self._ready)
        told = json_frame(RESULT, {"gate": DNS})
        try:
            client.send(told + _LENGTH.pack(len(question)) + question)  # far smaller than what a socket holds
        except OSError:
            self._close()

    def _ready(self, _events: int) -> None:
        try:
            data = self._client.recv(_ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._answer += data
        whole = len(self._answer) >= 2 and len(self._answer) >= 2 + _LENGTH.unpack_from(self._answer)[0]
        if whole:
            (size,) = _LENGTH.unpack_from(self._answer)
            try:
                self._datagrams.sendto(bytes(self._answer[2 : 2 + size]), self._sender)
            except OSError:
                pass  # whoever asked is gone
        if whole or not data:
            self._close()

    def _close(self) -> None:
        if self._over is None:
            return
        over, self._over = self._over, None
        self._timer.cancel()
        self._loop.forget(self._client.fileno())
        self._client.close()
        over()


def accept(sidekick: Sidekick, connection: Connection, _request: dict[str, Any]) -> None:
    """RESULT {gate, address, port} once a program comes; from then on the connection carries its bytes, unframed."""
    sidekick.gates.wait(connection)


def close_descriptors(sockets: dict[str, socket.socket], keep: list[str]) -> dict[str, socket.socket]:
    """Those of the gates that a sandbox has; the others are closed, so that connections to them are refused."""
    for name, one in sockets.items():
        if name not in keep:
            os.close(one.detach())
    return {name: one for name, one in sockets.items() if name in keep}


def _destination(sock: socket.socket) -> tuple[str, int]:
    """Where the program meant to go."""
    try:
        _, port, address = _ADDRESS.unpack(sock.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, _ADDRESS.size))
    except OSError:  # it came here on purpose: the server refuses our own address
        return "127.0.0.1", sock.getsockname()[1]
    return socket.inet_ntoa(address), port
