"""What differs when the SDK waits: connections, locks, pauses and files. `_async_io` has the same for awaiting.

The script that makes `_sync/` from `_async/` swaps one for the other; everything above is written once.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import IO, Any

RECEIVE_BYTES = 262_144
SEND_TIMEOUT_S = 60.0
# A dead peer is noticed after about 30 + 3 * 10 seconds, also while nobody sends.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


def prepare(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def readable(sock: socket.socket) -> bool:
    """Whether something, be it the end, can be read from `sock` now."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


class Wire:
    """One TCP connection. Errors are OSError; TimeoutError is one of them.

    One thread may send while another receives: the kernel keeps a timeout for each direction.
    """

    __slots__ = ("_receive_timeout_s", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._receive_timeout_s: float | None = None

    @staticmethod
    def open(host: str, port: int, timeout_s: float) -> Wire:
        sock = socket.create_connection((host, port), timeout_s)
        try:
            prepare(sock)
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT_S))
        except BaseException:
            sock.close()
            raise
        return Wire(sock)

    @property
    def sock(self) -> socket.socket:
        return self._sock

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError("the server takes no more data") from None

    def receive(self, timeout_s: float | None) -> bytes:
        """What has arrived, at most RECEIVE_BYTES; b"" at the end."""
        if timeout_s != self._receive_timeout_s:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout_s or 0.0))
            self._receive_timeout_s = timeout_s
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            raise TimeoutError("the server does not answer") from None

    def pending(self) -> bool:
        """Whether `receive` would return at once; on an idle connection that means that it has ended."""
        return readable(self._sock)

    def receive_now(self) -> bytes:
        """What has arrived, for when `pending` says so."""
        return self._sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)

    def shutdown(self) -> None:
        """End both directions, so that a reader in another thread wakes up."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


def _timeval(seconds: float) -> bytes:
    """For SO_RCVTIMEO; 0 waits forever, so that a tiny timeout must not become it."""
    micros = max(1, round(seconds * 1e6)) if seconds > 0 else 0
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


Lock = threading.Lock


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def read(file: IO[bytes], size: int) -> bytes:
    return file.read(size)


def write(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def call(function: Callable[[Any], Any], argument: object) -> None:
    function(argument)


class Background:
    """A call that goes on beside the caller, in a thread; `join` waits for it and raises what it raised."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        try:
            function(*arguments)
        except BaseException as error:  # handed to join
            self._error = error

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Its connection must be closed already: a thread can only be waited for."""
        self._thread.join()


def forget_in_child(forget: Callable[[], None]) -> None:
    """Call `forget` in every forked child: two processes must never share a connection."""
    os.register_at_fork(after_in_child=forget)
