"""Reading what a program has written, from a pipe or from its terminal; `processes` keeps it."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

READ_BYTES = 65_536
# A terminal gives at most this at a time, whatever it has: what is left is had at once, without another turn.
TERMINAL_BYTES = 4_095


def read_terminal(fd: int) -> bytes:
    """What it has, up to READ_BYTES."""
    pieces: list[bytes] = []
    left, got = READ_BYTES, TERMINAL_BYTES
    while left and got >= TERMINAL_BYTES:
        pieces.append(read_some(fd, left))
        got = len(pieces[-1])
        left -= got
    return b"".join(pieces)


def read_some(fd: int, size: int) -> bytes:
    """Nothing where there is nothing now, or never again: the other side of a terminal is closed (EIO)."""
    try:
        return os.read(fd, size)
    except OSError:
        return b""


def pending_bytes(fd: int) -> int:
    """How much there is to read now."""
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    except OSError:
        return 0
    return size
