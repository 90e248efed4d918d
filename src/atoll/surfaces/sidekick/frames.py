"""The messages of the sidekick API's WebSocket as clients send them: JSON text, or the binary form of the same.

Only text is sent back: the clients read that in either mode, and some of them read no binary message whole.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

CHARACTERS_SHOWN = 64
STRING, NUMBER, BOOLEAN, BYTES = 1, 2, 3, 4
_FIELDS_MAX = 64


class Malformed(ValueError):
    """What came is no message: the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a client asks for; the values in `data` are of JSON's kinds, or bytes."""

    type: str
    channel: str
    data: dict[str, Any]


def message_of(frame: str | bytes) -> Message:
    """Malformed when it is none."""
    return _binary(frame) if isinstance(frame, bytes) else _text(frame)


def _text(frame: str) -> Message:
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        raise Malformed("a message is JSON") from None
    if not isinstance(found, dict):
        raise Malformed("a message is an object")
    kind, channel, data = found.get("type"), found.get("channel"), found.get("data")  # pyright: ignore
    if not isinstance(kind, str) or not kind:
        raise Malformed("a message has a type")
    if not isinstance(channel, str | None) or not isinstance(data, dict | None):
        raise Malformed("a message's channel is text, and its data an object")
    return Message(kind, channel or "", data or {})  # pyright: ignore[reportUnknownArgumentType]


def _binary(frame: bytes) -> Message:
    """u8 kind, u16 and the channel, u16 and the type, u32 and the fields; all numbers are big-endian."""
    reader = _Reader(frame)
    reader.take(1)  # the type says the same
    channel = reader.text(reader.number(">H"))
    kind = reader.text(reader.number(">H"))
    data = _Reader(reader.take(reader.number(">I"))) if reader.left else _Reader(b"")
    if not kind:
        raise Malformed("a message has a type")
    return Message(kind, channel, _fields(data))


def _fields(reader: _Reader) -> dict[str, Any]:
    """u16 count, then for each u16 and its name, u8 kind of value, u32 and the value."""
    if not reader.left:
        return {}
    count = reader.number(">H")
    if count > _FIELDS_MAX:
        raise Malformed(f"a message has at most {_FIELDS_MAX} fields")
    found: dict[str, Any] = {}
    for _ in range(count):
        name = reader.text(reader.number(">H"))
        kind = reader.take(1)[0]
        found[name] = _value(kind, reader.take(reader.number(">I")))
    return found


def _value(kind: int, data: bytes) -> Any:
    if kind == NUMBER and len(data) == 8:
        return struct.unpack(">d", data)[0]
    if kind == BOOLEAN and len(data) == 1:
        return data != b"\0"
    if kind == BYTES:
        return data
    if kind != STRING:
        raise Malformed(f"a value of kind {kind} with {len(data)} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("text is UTF-8") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise Malformed("the message is shorter than it says")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise Malformed("text is UTF-8") from None
