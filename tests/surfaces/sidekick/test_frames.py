"""The messages of the sidekick API: text and binary say the same, and what is no message is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from atoll.surfaces.sidekick.frames import Malformed, message_of


def packed(type: str, channel: str = "", data: dict[str, Any] | None = None, kind: int = 3) -> bytes:
    """As the published clients pack it."""
    fields = struct.pack(">H", len(data or {}))
    for name, value in (data or {}).items():
        if isinstance(value, bool):
            number, raw = 3, bytes([value])
        elif isinstance(value, int | float):
            number, raw = 2, struct.pack(">d", value)
        elif isinstance(value, bytes):
            number, raw = 4, value
        else:
            number, raw = 1, value.encode()
        fields += struct.pack(">H", len(name)) + name.encode() + struct.pack(">BI", number, len(raw)) + raw
    words = [text.encode() for text in (channel, type)]
    head = struct.pack(">BH", kind, len(words[0])) + words[0] + struct.pack(">H", len(words[1])) + words[1]
    return head + struct.pack(">I", len(fields)) + fields


@pytest.mark.parametrize(
    "type, channel, data",
    [
        ("subscribe", "terminal:t", {}),
        ("terminal:input", "", {"terminal_id": "t", "input": "ü\n"}),
        ("terminal:resize", "", {"terminal_id": "t", "cols": 80.0, "rows": 24.0}),
        ("command:start", "", {"cmd_id": "c", "again": True}),
    ],
)
def test_text_and_binary_say_the_same(type: str, channel: str, data: dict[str, Any]) -> None:
    text = message_of(json.dumps({"type": type, "channel": channel, "data": data}))
    assert text == message_of(packed(type, channel, data))
    assert (text.type, text.channel, text.data) == (type, channel, data)


def test_bytes_are_a_kind_of_value_too() -> None:
    assert message_of(packed("terminal:input", data={"input": b"\x00\xff"})).data == {"input": b"\x00\xff"}


def test_channel_and_data_may_be_absent() -> None:
    found = message_of('{"type": "subscribe"}')
    assert (found.channel, found.data) == ("", {})
    assert message_of(packed("subscribe", "c")[:-6]).data == {}


WHOLE = packed("terminal:input", "c", {"input": "text"})


@pytest.mark.parametrize(
    "frame",
    [
        "", "{", "[]", '"x"', "1", "[" * 9999, "{}", '{"type": 5}', '{"type": ""}', '{"type": "a", "channel": 5}',
        '{"type": "a", "data": []}', b"", b"\x03", b"\x03\xff\xff", packed(""), packed("a", data={"x": "y"})[:-1],
        packed("a")[:-2] + b"\xff\xff", packed("a")[:-6] + b"\x00\x00\x00\x02\x00\x41",
        packed("a", data={"x": "y"}).replace(b"\x01\x00\x00\x00\x01y", b"\x09\x00\x00\x00\x01y"),
        packed("a", data={"x": "y"}).replace(b"\x01y", b"\x01\xff"), packed("a", "c").replace(b"c", b"\xff"),
        *(WHOLE[:size] for size in (2, 5, 10, 22, len(WHOLE) - 1)),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(frame: str | bytes) -> None:
    with pytest.raises(Malformed):
        message_of(frame)
