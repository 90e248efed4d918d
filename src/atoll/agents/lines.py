"""Lines that agents write: each one object of JSON, from a program that a tenant may have put in the agent's place.

The adapters read them with `object_in` and take texts out with `text_of`, so that nothing odd goes any further.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

LINE_BYTES_MAX = 4 * 2**20
TEXT_CHARS_MAX = 2**18  # a message
OUTPUT_CHARS_MAX = 2**16  # what a command wrote
ITEMS_MAX = 500
COUNT_MAX = 2**53  # what every reader of JSON takes as it is
STDERR_BYTES_MAX = 2**14
_CUT = " ... "


def object_in(line: bytes) -> Mapping[str, Any] | None:
    """The object that the line is; None for anything else."""
    if len(line) > LINE_BYTES_MAX:
        return None
    try:
        found = json.loads(line.decode(errors="replace"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def text_of(value: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """A text as every store takes it: no NUL, no half of a character; its middle left out where it is too long."""
    if not isinstance(value, str):
        return ""
    if len(value) > chars_max:
        head = chars_max // 4
        value = value[:head] + _CUT + value[-(chars_max - head - len(_CUT)) :]
    return value.replace("\0", "\ufffd").encode(errors="replace").decode()


def count_of(value: object) -> int:
    """A number of tokens; 0 for what is none."""
    return min(value, COUNT_MAX) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def objects_in(value: object) -> Sequence[Mapping[str, Any]]:
    """The objects of a list; none when it is no list."""
    if not isinstance(value, list):
        return ()
    return [cast("dict[str, Any]", item) for item in cast("list[object]", value)[:ITEMS_MAX] if isinstance(item, dict)]


def fields_of(value: object) -> Mapping[str, Any]:
    """The object, or an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


class Tail:
    """The last bytes of what was written to it."""

    def __init__(self, bytes_max: int = STDERR_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data[-self._bytes_max :]
        if len(self._kept) > self._bytes_max:
            del self._kept[: -self._bytes_max]

    @property
    def text(self) -> str:
        return text_of(bytes(self._kept).decode(errors="replace").strip())


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
