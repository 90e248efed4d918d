"""How a surface declares what it serves: operations with parameters, bodies and answers.

`routing` makes routes of them and `openapi` the document: neither knows one that the other lacks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from atoll.domain.errors import InvalidInput
from atoll.domain.principal import Principal
from atoll.surfaces.actions import READING
from atoll.surfaces.ways import Ways

WEBSOCKET = "WEBSOCKET"  # stands where an operation's method does
JSON = "application/json"
BYTES = "application/octet-stream"

Handler = Callable[[Request, Principal], Awaitable[Response]]
Follower = Callable[[Request, Principal, Response], Awaitable[Response]]
PublicHandler = Callable[[Request], Awaitable[Response]]
SocketHandler = Callable[[WebSocket, Principal], Awaitable[None]]

_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})


class InvalidQuery(InvalidInput):
    """The query is not valid."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter: what the document says of it is what its readers enforce."""

    name: str
    description: str
    kind: type[str] | type[int] | type[bool] = str
    required: bool = False
    repeatable: bool = False
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    max_chars: int = 4096
    max_items: int = 1024
    raw: bool = False  # percent-encoded bytes that are no UTF-8 are fine: they come as lone surrogates

    def text(self, request: HTTPConnection) -> str | None:
        """Its value as it came; InvalidInput when it is missing though required, or given twice."""
        values = self._values(request)
        if len(values) > 1:
            raise InvalidQuery(f"{self.name} is given more than once", field=self.name)
        if not values:
            if self.required:
                raise InvalidQuery(f"the query parameter {self.name} is required", field=self.name)
            return None
        return self._checked(values[0])

    def texts(self, request: HTTPConnection) -> list[str]:
        """All its values, of a repeatable one."""
        values = self._values(request)
        if len(values) > self.max_items:
            raise InvalidQuery(f"{self.name} is given more than {self.max_items} times", field=self.name)
        if self.required and not values:
            raise InvalidQuery(f"the query parameter {self.name} is required", field=self.name)
        return [self._checked(value) for value in values]

    def number(self, request: HTTPConnection) -> int | None:
        """Its value as a whole number within its bounds."""
        text = self.text(request)
        if text is None:
            return None
        if not (text.lstrip("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 20):
            raise InvalidQuery(f"{self.name} must be a whole number", field=self.name)
        value = int(text)
        if (self.minimum is not None and value < self.minimum) or (self.maximum is not None and value > self.maximum):
            raise InvalidQuery(f"{self.name} must be between {self.minimum} and {self.maximum}", field=self.name)
        return value

    def flag(self, request: HTTPConnection, *, default: bool = False) -> bool:
        """Its value as true or false."""
        text = self.text(request)
        if text is None:
            return default
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise InvalidQuery(f"{self.name} must be true or false", field=self.name)

    def _values(self, request: HTTPConnection) -> list[str]:
        if not self.raw:
            return request.query_params.getlist(self.name)
        return [value for name, value in _pairs(request) if name == self.name]

    def _checked(self, value: str) -> str:
        if len(value) > self.max_chars:
            raise InvalidQuery(f"{self.name} is longer than {self.max_chars} characters", field=self.name)
        if "\0" in value:
            raise InvalidQuery(f"{self.name} contains a NUL character", field=self.name)
        if self.choices and value not in self.choices:
            raise InvalidQuery(f"{self.name} must be one of {', '.join(self.choices)}", field=self.name)
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """One success of an operation. `schema` is a pydantic model, a schema itself, or None for bytes."""

    status: int
    description: str
    schema: type[Any] | dict[str, Any] | None = None
    media: str = JSON
    headers: tuple[tuple[str, str], ...] = ()  # name, description


class Once(Enum):
    """What an error leaves of an operation that has one effect for one Idempotency-Key."""

    MADE = "made"  # nothing: what it had made is undone, and the key may be used again
    RAN = "ran"  # nobody knows, where something may have run already


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `body` is a pydantic model, or BYTES for a raw upload."""

    method: str
    path: str
    handler: Handler | PublicHandler | SocketHandler
    id: str
    summary: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: type[Any] | str | None = None
    body_required: bool = True
    errors: tuple[int, ...] = ()
    public: bool = False
    tag: str = "sessions"
    description: str = ""
    error: type[Any] | None = None  # the model of its errors, where it is not the document's own
    then: Follower | None = None  # makes the answer of what the handler said, for each request anew where `once` holds
    once: Once | None = None  # it takes an Idempotency-Key, with which it has one effect however often it is sent
    rates: tuple[str, ...] = ()  # classes of the settings' `rates` that it counts in besides its surface's
    header: bytes | None = None  # one that carries its credential besides, and before, the usual ones
    token_in_query: bool = False  # it takes ?token=, as `Ways` says, like the next three
    subprotocol: bool = False
    cookie: str = ""
    page: bool = False

    @property
    def ways(self) -> Ways:
        """How its credential may come besides the usual headers."""
        return Ways(self.header, self.token_in_query, self.subprotocol, self.cookie, self.page)

    @property
    def changes(self) -> bool:
        """Whether it may change something: such requests are in the audit trail, whatever became of them."""
        return self.method not in ("GET", "HEAD", "OPTIONS") and self.id not in READING

    def check_query(self, request: HTTPConnection) -> None:
        """InvalidInput for a parameter that is not declared: a misspelt one would be ignored in silence.

        And for a query that is no UTF-8: what cannot be decoded would be replaced, so that another path is meant.
        """
        raw: bytes = request.scope["query_string"]
        known = {parameter.name: parameter for parameter in self.parameters}
        if not raw.isascii() or (
            b"%" in raw and not all(_meant(name, value, known) for name, value in _pairs(request))
        ):
            raise InvalidQuery("the query must be percent-encoded UTF-8")
        for name in request.query_params:
            if name not in known:
                shown = name[:64].encode(errors="replace").decode()
                raise InvalidQuery(f"unknown query parameter {shown!r}", field=shown)


def _pairs(request: HTTPConnection) -> list[tuple[str, str]]:
    """The query as it was meant: bytes that are no UTF-8 as lone surrogates."""
    query: bytes = request.scope["query_string"]
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")


def _meant(name: str, value: str, known: dict[str, Parameter]) -> bool:
    return _is_utf8(name) and (_is_utf8(value) or (name in known and known[name].raw))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
