"""Transcript: an agent's output, byte by byte, as lines and what they mean; a run feeds it and stores what comes out.

Offsets count stdout and stderr together, as the sandbox does. What was stored before is said to the reader again, for
what it remembers, and not told twice: so a server that takes a task over knows what the one before it knew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.agents.base import Outcome, Reader, Said
from atoll.domain.process import Exit
from atoll.sidekick.protocol import STDOUT


class Transcript:
    """Of one run. `told_to` is the offset up to which lines were told before; nothing that ends there is told again."""

    def __init__(self, reader: Reader, told_to: int, line_bytes_max: int) -> None:
        self._reader = reader
        self._told_to = told_to
        self._line_bytes_max = line_bytes_max
        self._line = bytearray()
        self.offset = told_to  # behind the last whole line

    @property
    def agent_thread(self) -> str:
        return self._reader.agent_thread

    def feed(self, kind: int, data: bytes, end: int) -> list[Said]:
        """What bytes of one stream, which end at that offset, say."""
        if kind != STDOUT:
            self._reader.stderr(data)
            return []
        said: list[Said] = []
        begin, at = end - len(data), 0
        while at < len(data):
            newline = data.find(b"\n", at)
            stop = len(data) if newline < 0 else newline + 1
            room = self._line_bytes_max - len(self._line)
            if stop - at > room:
                stop, newline = at + room, -1
            self._line += data[at:stop]
            at = stop
            if newline >= 0 or len(self._line) >= self._line_bytes_max:
                said += self._take(begin + at)
        return said

    def rest(self, end: int) -> list[Said]:
        """A last line without an end."""
        return self._take(end) if self._line else []

    def end(self, exit_: Exit | None) -> Outcome:
        return self._reader.end(exit_)

    def _take(self, end: int) -> list[Said]:
        line = bytes(self._line).removesuffix(b"\n").removesuffix(b"\r")
        self._line.clear()
        said = self._reader.line(line)
        if end <= self._told_to:
            return []
        self.offset = end
        return list(said)


def bounded(data: Mapping[str, Any], chars_max: int) -> dict[str, Any]:
    """The same with no text in it longer than that."""
    return {name: _bounded(value, chars_max) for name, value in data.items()}


def _bounded(value: Any, chars_max: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= chars_max else value[:chars_max] + " [cut]"
    if isinstance(value, Mapping):
        return {str(name): _bounded(each, chars_max) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_bounded(each, chars_max) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return value
