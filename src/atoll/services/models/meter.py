"""Meter: reads the tokens of a call out of the provider's answer while it passes; what it says is all that counts.

A provider may say anything: what is no usage is none, and then the tokens are estimated from the bytes and marked so.
Of two usages the larger of each number holds, for the later ones of a stream are sums.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from atoll.domain.price import TokenUse
from atoll.services.models.dialects import Dialect

LINE_BYTES_MAX = 16 * 2**20  # of one event; a longer one passes unread
COUNT_MAX = 10**9
BYTES_PER_TOKEN = 3  # of English text about 4: an estimate is on the careful side
_STRING = rb'"\s*:\s*"((?:[^"\\]|\\.)*)"'
_ENDS = (b"data: [DONE]", b'data: {"type":"message_stop"', b'data: {"type": "message_stop"')
# where the words are that a model says; elsewhere the last events say them again
_SAID = {
    Dialect.RESPONSES: re.compile(rb'"delta' + _STRING),
    Dialect.CHAT: re.compile(rb'"(?:content|arguments|reasoning_content|reasoning)' + _STRING),
    Dialect.MESSAGES: re.compile(rb'"(?:text|partial_json|thinking)' + _STRING),
}


class Meter(ABC):
    """Of one answer."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._input: int | None = None
        self._output: int | None = None
        self._cached = self._reasoning = 0
        self._said_bytes = 0
        self._final = False  # the provider has told the whole use
        self.over = False  # nothing that counts comes any more

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """The next bytes of the answer; what of it the program gets."""

    @abstractmethod
    def end(self) -> bytes:
        """The answer is over; what is left for the program."""

    def tokens(self, asked: int) -> TokenUse:
        """What was used, as far as it is known by now; `asked` are those that the request may have."""
        known_output = self._output if self._final else None
        estimated = self._input is None or known_output is None
        used = self._input if self._input is not None else asked
        output = known_output
        if output is None:
            output = max(self._output or 0, -(-self._said_bytes // BYTES_PER_TOKEN))
        return TokenUse(used, output, min(self._cached, used), min(self._reasoning, output), estimated)

    def _note(self, usage: Any, *, final: bool) -> None:
        if not isinstance(usage, dict):
            return
        told = cast("Mapping[str, Any]", usage)
        if self._dialect is Dialect.MESSAGES:
            self._note_messages(told)
        else:
            self._note_openai(told)
        self._final = self._final or (final and self._output is not None)

    def _note_openai(self, told: Mapping[str, Any]) -> None:
        before, after = ("prompt", "completion") if self._dialect is Dialect.CHAT else ("input", "output")
        self._input = _larger(self._input, _count(told.get(f"{before}_tokens")))
        self._output = _larger(self._output, _count(told.get(f"{after}_tokens")))
        self._cached = max(self._cached, _detail(told, f"{before}_tokens_details", "cached_tokens"))
        self._reasoning = max(self._reasoning, _detail(told, f"{after}_tokens_details", "reasoning_tokens"))

    def _note_messages(self, told: Mapping[str, Any]) -> None:
        given = _count(told.get("input_tokens"))
        read = _count(told.get("cache_read_input_tokens")) or 0
        written = _count(told.get("cache_creation_input_tokens")) or 0
        if given is not None:
            self._input = _larger(self._input, given + read + written)
        self._cached = max(self._cached, read)
        self._output = _larger(self._output, _count(told.get("output_tokens")))

    def _note_answer(self, answer: Any) -> None:
        if isinstance(answer, dict):
            self._note(cast("Mapping[str, Any]", answer).get("usage"), final=True)


class BodyMeter(Meter):
    """Of an answer in one piece, which is kept until its end; whoever reads it bounds it."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__(dialect)
        self._body = bytearray()

    def feed(self, data: bytes) -> bytes:
        self._body += data
        return b""

    def end(self) -> bytes:
        try:
            self._note_answer(msgspec.json.decode(self._body))
        except (ValueError, RecursionError):
            pass
        if not self._final:
            self._said_bytes = sum(len(found) for found in _SAID[Dialect.CHAT].findall(self._body)) or len(self._body)
        self.over = True
        return bytes(self._body)


class StreamMeter(Meter):
    """Of server-sent events, which pass as they come, but for one that the program did not ask for."""

    def __init__(self, dialect: Dialect, *, hide_usage: bool = False) -> None:
        """`hide_usage`: the request asked for no event with the usage of chat completions, we did."""
        super().__init__(dialect)
        self._hide = hide_usage
        self._line = bytearray()
        self._skipping = False  # the rest of a line that is too long
        self._hid = False

    def feed(self, data: bytes) -> bytes:
        if not self._hide:
            self._read(data)
            return data
        return self._read(data)

    def end(self) -> bytes:
        left = bytes(self._line)
        self._line.clear()
        if left and not self._skipping:
            self._look(left)
        return left if self._hide else b""

    def _read(self, data: bytes) -> bytes:
        """Look at each line that is whole now; those that are not hidden."""
        passed: list[bytes] = []
        for piece in data.splitlines(keepends=True) if b"\r" in data else _lines(data):
            whole = piece.endswith((b"\n", b"\r"))
            if self._skipping:
                passed.append(piece)
                self._skipping = not whole
                continue
            self._line += piece
            if whole:
                line = bytes(self._line)
                self._line.clear()
                if not self._hides(line):
                    passed.append(line)
            elif len(self._line) > LINE_BYTES_MAX:
                passed.append(bytes(self._line))
                self._line.clear()
                self._skipping = True
        return b"".join(passed) if self._hide else b""

    def _hides(self, line: bytes) -> bool:
        found = self._look(line)
        if not self._hide:
            return False
        if self._hid and not line.strip():  # the blank line that ends a hidden event
            self._hid = False
            return True
        self._hid = found
        return found

    def _look(self, line: bytes) -> bool:
        """Whether this is the event that has nothing but the usage."""
        if not line.startswith(b"data:"):
            return False
        if line.startswith(_ENDS):
            self.over = True
            return False
        if b'"usage"' in line:
            try:
                event = msgspec.json.decode(line[5:].strip())
            except (ValueError, RecursionError):
                return False
            if isinstance(event, dict):
                self._note_event(cast("Mapping[str, Any]", event))
                if self._hide and cast("Mapping[str, Any]", event).get("choices") == []:
                    return True
        self._said_bytes += sum(len(found) for found in _SAID[self._dialect].findall(line))
        return False

    def _note_event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if self._dialect is Dialect.RESPONSES:
            if kind in ("response.completed", "response.incomplete", "response.failed", "response.cancelled"):
                self._note_answer(event.get("response"))
                self.over = True
        elif self._dialect is Dialect.CHAT:
            self._note(event.get("usage"), final=True)
        elif kind == "message_start":
            message = event.get("message")
            if isinstance(message, dict):
                self._note(cast("Mapping[str, Any]", message).get("usage"), final=False)
        elif kind == "message_delta":
            self._note(event.get("usage"), final=True)


def meter_of(dialect: Dialect, *, streamed: bool, hide_usage: bool) -> Meter:
    return StreamMeter(dialect, hide_usage=hide_usage) if streamed else BodyMeter(dialect)


def _lines(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= COUNT_MAX else None


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _detail(told: Mapping[str, Any], group: str, name: str) -> int:
    inside = told.get(group)
    return (_count(cast("Mapping[str, Any]", inside).get(name)) or 0) if isinstance(inside, dict) else 0
