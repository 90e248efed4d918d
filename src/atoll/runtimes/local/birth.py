"""Birth: the line between the node and a child that is becoming a sandbox, until its sidekick serves.

The child says `prepared` when its root stands, waits for its assignment, and says `ready` or what went wrong.
"""

from __future__ import annotations

import json
import socket
import struct

from atoll.sidekick.loop import READ, Loop
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LENGTH = struct.Struct("!I")
READY_S = 20.0
SEND_S = 2.0  # an assignment may be larger than the socket holds, and a child may hang: the node waits for nobody
GO = b"1"
PREPARED = b"p"
READY = b"r"
REFUSED = b"!"  # then a code and a message: what was asked for cannot be


class Birth:
    """The node's end. `prepared` is set once the child waits for its assignment."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        sock.settimeout(SEND_S)
        self._then: Callable[[Refused | str | None], None] | None = None
        self._over = False
        self._when_prepared: Callable[[], None] | None = None
        self.prepared = False
        loop.watch(sock.fileno(), READ, self._told)
        self._timer = loop.after(READY_S, lambda: self.close(f"the sandbox was not ready within {READY_S:g} s"))

    def go(self) -> None:
        """What the child waited for outside itself (its id maps, its link) is there."""
        self._sock.send(GO)

    def expect(self, then: Callable[[Refused | str | None], None]) -> None:
        """`then(None)` when it serves, `then(error)` when it does not, once."""
        self._then = then

    def when_prepared(self, call: Callable[[], None]) -> None:
        """Call it once the child waits for its assignment; not at all when it comes to its end before."""
        if self.prepared:
            call()
        else:
            self._when_prepared = call

    def assign(self, config: dict[str, Any]) -> None:
        """Tell the child who it is."""
        data = json.dumps(config).encode()
        self._sock.sendall(LENGTH.pack(len(data)) + data)

    def close(self, error: Refused | str | None) -> None:
        """The end of it; tells who waits, once."""
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        if self._then is not None:
            self._then(error)

    def _told(self, _events: int) -> None:
        try:
            data = self._sock.recv(65_536)
        except OSError:  # it was killed before it had read all that was for it
            data = b""
        if data.startswith(PREPARED):
            self.prepared = True
            if self._then is None:
                self._timer.cancel()  # a spare one waits as long as it likes
            data = data[len(PREPARED) :]
            if self._when_prepared is not None:
                self._when_prepared()
            if not data:
                return
        if data == READY:
            self.close(None)
        elif data.startswith(REFUSED):
            code, _, message = data[len(REFUSED) :].decode().partition(" ")
            self.close(Refused(code, message))
        else:
            self.close(data.decode(errors="replace") or "the sandbox ended while it was made")


def receive(sock: socket.socket, size: int) -> bytes:
    """The child's side: exactly `size` bytes; ends the child when the node is gone."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise SystemExit("the node is gone")
        data += piece
    return data


def receive_assignment(sock: socket.socket) -> dict[str, Any]:
    (size,) = LENGTH.unpack(receive(sock, LENGTH.size))
    return json.loads(receive(sock, size))
