"""The messages of attach and exec streams, binary and JSON; `streams` moves them between a client and a process.

One message is one WebSocket frame. Binary: a type byte, a big-endian u32 length, that many bytes (exit: the code
instead of both). JSON: the same as text, `{type, data?: base64, code?, cols?, rows?}`.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any, Protocol, cast

STDIN, STDOUT, STDERR, EXIT, ERROR, STDIN_CLOSE, RESIZE = range(1, 8)
ERROR_BYTES_MAX = 1024
_HEAD = struct.Struct("!BI")
_SIZE = struct.Struct("!BHH")
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}

Outgoing = bytes | str


class Malformed(Exception):
    """A message that is none; the stream says so to its sender and goes on."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a client says: STDIN with data, STDIN_CLOSE, or RESIZE with a size."""

    kind: int
    data: bytes = b""
    cols: int = 0
    rows: int = 0


class Wire(Protocol):
    """One of the two forms."""

    def output(self, kind: int, data: bytes) -> Outgoing: ...

    def exit(self, code: int) -> Outgoing: ...

    def error(self, text: str) -> Outgoing: ...

    def decode(self, message: bytes) -> Incoming:
        """Malformed when it is no message that a client may send."""
        ...


class BinaryWire:
    """The protocol of the seed."""

    def output(self, kind: int, data: bytes) -> Outgoing:
        return _HEAD.pack(kind, len(data)) + data

    def exit(self, code: int) -> Outgoing:
        return _HEAD.pack(EXIT, code & 0xFFFFFFFF)

    def error(self, text: str) -> Outgoing:
        data = _short(text)
        return _HEAD.pack(ERROR, len(data)) + data

    def decode(self, message: bytes) -> Incoming:
        if not message:
            raise Malformed("invalid binary message: empty")
        kind = message[0]
        if kind == STDIN:
            if len(message) < _HEAD.size:
                raise Malformed("invalid binary message: shorter than its header")
            if _HEAD.unpack_from(message)[1] != len(message) - _HEAD.size:
                raise Malformed("invalid binary message: its length is not that of its data")
            return Incoming(STDIN, message[_HEAD.size :])
        if kind == STDIN_CLOSE:
            if len(message) != 1:
                raise Malformed("invalid binary message: stdin close carries no data")
            return Incoming(STDIN_CLOSE)
        if kind == RESIZE:
            if len(message) != _SIZE.size:
                raise Malformed("invalid binary message: resize is two u16, columns and rows")
            _, cols, rows = _SIZE.unpack(message)
            return _resize(cols, rows)
        raise Malformed(f"invalid binary message: unknown type 0x{kind:02x}")


class JsonWire:
    """`protocol=json`, for clients that would rather not pack bytes."""

    def output(self, kind: int, data: bytes) -> Outgoing:
        return f'{{"type":"{_NAMES[kind]}","data":"{base64.b64encode(data).decode()}"}}'

    def exit(self, code: int) -> Outgoing:
        return f'{{"type":"exit","code":{code}}}'

    def error(self, text: str) -> Outgoing:
        return json.dumps({"type": "error", "data": base64.b64encode(_short(text)).decode()})

    def decode(self, message: bytes) -> Incoming:
        try:
            value: object = json.loads(message)
        except (ValueError, RecursionError):
            raise Malformed("invalid json message: not JSON") from None
        if not isinstance(value, dict):
            raise Malformed("invalid json message: not an object")
        fields = cast(dict[str, Any], value)
        kind = fields.get("type")
        if kind == "stdin":
            return Incoming(STDIN, _data(fields.get("data", "")))
        if kind == "stdin_close":
            return Incoming(STDIN_CLOSE)
        if kind == "resize":
            return _resize(fields.get("cols"), fields.get("rows"))
        raise Malformed("invalid json message: type must be stdin, stdin_close or resize")


WIRES: dict[str, Wire] = {"binary": BinaryWire(), "json": JsonWire()}


def _data(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Malformed("invalid json message: data is not base64") from None


def _resize(cols: Any, rows: Any) -> Incoming:
    for number in (cols, rows):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65_535:
            raise Malformed("invalid message: cols and rows must be within 1..65535")
    return Incoming(RESIZE, cols=cols, rows=rows)


def _short(text: str) -> bytes:
    """At most ERROR_BYTES_MAX bytes of it, cut between characters."""
    return text.encode()[:ERROR_BYTES_MAX].decode(errors="ignore").encode()
