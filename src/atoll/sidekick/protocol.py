"""The frames that travel between a sidekick and its clients; docs/sidekick-protocol.md is the full page.

A frame is one type byte, a big-endian u32 length and that many bytes. A connection carries one request.
"""

from __future__ import annotations

import json
import struct
from typing import Any

STDIN = 0x01
STDOUT = 0x02
STDERR = 0x03
ERROR = 0x05  # JSON {code, message}: codes of domain/errors.py; the last frame of its connection
STDIN_CLOSE = 0x06
RESIZE = 0x07  # u16 columns, u16 rows
REQUEST = 0x10  # JSON {op, ...}: the first frame of every connection
RESULT = 0x11  # JSON: the answer
DATA = 0x12  # bytes of a file, both ways
END = 0x13  # no more DATA
EXIT = 0x14  # JSON {code, signal, timed_out, oom_killed, duration_s}

HEADER = struct.Struct("!BI")
SIZE = struct.Struct("!HH")
MAX_FRAME_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame, ready to send."""
    return HEADER.pack(kind, len(payload)) + payload


def json_frame(kind: int, value: Any) -> bytes:
    """One frame with a JSON payload."""
    return frame(kind, json.dumps(value, separators=(",", ":")).encode())


class Refused(Exception):
    """A request that cannot be done; becomes an ERROR frame. `code` is one of domain/errors.py."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
