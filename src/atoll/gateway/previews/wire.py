"""Wire: bytes over a socket that somebody else may have made block: each call says that it must not.

An upstream connection is one, whether it came out of a sandbox or is one end of a pair of our own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from atoll.gateway.previews.failures import Broken, UpstreamFailed

PIECE_BYTES = 65_536
HELD_BYTES = 65_536  # that wait to be written, where more is not taken
_NOW = socket.MSG_DONTWAIT
_NO_LINGER = struct.pack("ii", 0, 0)


class Wire:
    """`on_data` gets each piece, empty bytes at the end of the stream; `on_failure` is called once, when it is cut;
    `on_room` when what waits to be written is within bounds again."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        self._out = bytearray()
        self._room: asyncio.Future[None] | None = None
        self._reading = False
        self._ended = False  # nothing more comes
        self._deaf = False  # it takes no more
        self.failure: UpstreamFailed | None = None
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_failure: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def full(self) -> bool:
        """Whether more waits to be written than should."""
        return len(self._out) > HELD_BYTES

    def resume(self) -> None:
        if not self._reading and self._fd >= 0 and not self._ended:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def write(self, data: bytes) -> None:
        """Now, or as soon as there is room: `drain` waits for that. Ignored once it is closed."""
        if self._fd < 0 or self._deaf:
            return
        if not self._out:
            try:
                sent = self._sock.send(data, _NOW)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._unheard()
                return
            if sent == len(data):
                return
            self._out += memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._writable)
        else:
            self._out += data

    async def drain(self) -> None:
        """Until what waits is within bounds. UpstreamFailed when it is cut."""
        while self.full and self._fd >= 0:
            room = self._room = self._loop.create_future()
            try:
                await room
            finally:
                self._room = None
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd < 0:
            return
        self.pause()
        if self._out:
            self._loop.remove_writer(self._fd)
            self._out.clear()
        self._fd = -1
        with suppress(OSError):  # whoever made it may have said that closing waits, and everything would wait with it
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._sock.close()
        self._let_go()

    def fail(self, failure: UpstreamFailed) -> None:
        """Cut it, for this reason; the first one counts."""
        if self.failure is None:
            self.failure = failure
            self.close()
            self.on_failure()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(PIECE_BYTES, _NOW)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(Broken(f"the connection broke off: {error.strerror}"))
            return
        if not data:
            self._ended = True
            self.pause()
        self.on_data(data)

    def _writable(self) -> None:
        try:
            del self._out[: self._sock.send(self._out, _NOW)]
        except BlockingIOError:
            return
        except OSError:
            self._unheard()
            return
        if not self._out:
            self._loop.remove_writer(self._fd)
        if not self.full:
            self._let_go()
            self.on_room()

    def _unheard(self) -> None:
        """It takes no more. What it has said before may still be read: an answer that came early, or its end."""
        if self._out:
            self._loop.remove_writer(self._fd)
            self._out.clear()
        self._deaf = True
        self._let_go()

    def _let_go(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
