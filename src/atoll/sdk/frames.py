"""The binary frames of execbox's process streams, and what Atoll adds: resize, and the offset of the output.

One frame is one WebSocket message: a type byte, then a big-endian u32 length and that many bytes, or a fixed value.
"""

from __future__ import annotations

import struct
from typing import Literal

from atoll.domain.errors import Internal
from atoll.sdk.values import Chunk

STDIN = 0x01
STDOUT = 0x02
STDERR = 0x03
EXIT = 0x04
ERROR = 0x05
STDIN_CLOSE = 0x06
RESIZE = 0x07

STDIN_BYTES = 65_536  # of one frame, so that a dropped connection takes little with it
_HEAD = struct.Struct("!BI")
_SIZE = struct.Struct("!BHH")
_STREAMS: dict[int, Literal["stdout", "stderr"]] = {STDOUT: "stdout", STDERR: "stderr"}


def stdin(data: bytes) -> bytes:
    return _HEAD.pack(STDIN, len(data)) + data


def stdin_close() -> bytes:
    return bytes([STDIN_CLOSE])


def resize(cols: int, rows: int) -> bytes:
    return _SIZE.pack(RESIZE, min(max(cols, 1), 65_535), min(max(rows, 1), 65_535))


def decode(message: bytes) -> Chunk | int | str:
    """Output, an exit code (128 + n for signal n), or the server's complaint."""
    if len(message) < _HEAD.size:
        raise Internal("the server sent a frame that is too short")
    kind, number = _HEAD.unpack_from(message)
    if kind == EXIT:
        return number if number < 2**31 else 128 + (2**32 - number)  # -n as u32 means signal n
    data = message[_HEAD.size :]
    if len(data) != number:
        raise Internal("the server sent a frame whose length is wrong")
    if kind == ERROR:
        return data.decode("utf-8", "replace")
    stream = _STREAMS.get(kind)
    if stream is None:
        raise Internal(f"the server sent a frame of unknown type 0x{kind:02x}")
    return Chunk(stream, data)
