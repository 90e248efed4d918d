"""Reads server-sent events from bytes as they come (WHATWG HTML, 9.2.6); the streams of tasks use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from atoll.domain.errors import TooLarge

EVENT_BYTES_MAX = 32 * 2**20


class ServerEvent(NamedTuple):
    """One event; `id` is the last one that was told, as a browser has it."""

    id: str
    event: str
    data: str


class EventReader:
    """Feed it pieces of any size. Comments and unknown fields say nothing; an event that has no end yet is kept."""

    def __init__(self, last_id: str = "") -> None:
        self._id = last_id
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._rest = bytearray()  # of a line that has no end yet

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that are whole now. TooLarge for one beyond EVENT_BYTES_MAX."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._add(line)
            whole, self._rest = self._rest, bytearray()
            found = self._line(whole.removesuffix(b"\r").decode("utf-8", "replace"))
            if found is not None:
                yield found
        self._add(rest)

    def _add(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) + self._size > EVENT_BYTES_MAX:
            raise TooLarge(f"the server sends an event of more than {EVENT_BYTES_MAX} bytes")

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _end(self) -> ServerEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return ServerEvent(self._id, event, "\n".join(data)) if data else None
