"""Spans: what took how long, and in the course of what; services name theirs here and know nothing of OpenTelemetry.

The current span travels in the context, as asyncio copies it. Without tracing there is none, and naming one costs a
look at a variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, ContextVar, Token, copy_context
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Value = str | int | float | bool
TRACEPARENT = "TRACEPARENT"  # the variable by which programs know their parent, as OpenTelemetry names it

_HEADER = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class Span(Protocol):
    """Something that is going on. What is set on it is seen by whoever runs the collector: no secret, no content."""

    @property
    def traceparent(self) -> str:
        """As W3C Trace Context writes it; empty where there is no trace yet."""
        ...

    @property
    def root(self) -> Span | None:
        """What nothing else is a part of."""
        ...

    def child(self, name: str, attributes: dict[str, Value]) -> AbstractContextManager[Span]:
        """One that lasts as long as the block, and is the current one within."""
        ...

    def set(self, name: str, value: Value) -> None: ...

    def keep(self, under: str | None) -> Callable[[], None]:
        """Let `kept` find it, until what is returned is called."""
        ...

    def kept(self, under: str) -> Span:
        """The one that was kept under that name; itself where none was."""
        ...


class Passed:
    """What a caller sent where nothing is traced: it is handed on to programs, and that is all."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent
        self.root = None

    def child(self, name: str, attributes: dict[str, Value]) -> AbstractContextManager[Span]:
        return nullcontext(self)

    def set(self, name: str, value: Value) -> None:
        return

    def keep(self, under: str | None) -> Callable[[], None]:
        return _nothing

    def kept(self, under: str) -> Span:
        return self


NOTHING = Passed("")
_NO_BLOCK: AbstractContextManager[Span] = nullcontext(NOTHING)
_CURRENT: ContextVar[Span | None] = ContextVar("atoll_span", default=None)


def span(name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """A part of what is going on. `name` is one of a few; what differs from call to call is an attribute."""
    current = _CURRENT.get()
    return _NO_BLOCK if current is None else current.child(name, attributes)


def span_of(under: str, name: str, **attributes: Value) -> AbstractContextManager[Span]:
    """A part of what was kept under that name: of a task, say, whoever goes on with it."""
    current = _CURRENT.get()
    return _NO_BLOCK if current is None else current.kept(under).child(name, attributes)


def spanned(name: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Each call of that coroutine function is a part of what is going on."""

    def decorate(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        async def within(of: Span, *args: P.args, **named: P.kwargs) -> T:
            with of.child(name, {}):
                return await work(*args, **named)

        @wraps(work)
        def called(*args: P.args, **named: P.kwargs) -> Coroutine[Any, Any, T]:
            of = _CURRENT.get()
            return work(*args, **named) if of is None else within(of, *args, **named)

        return called

    return decorate


def note(name: str, value: Value) -> None:
    """Something about the current span."""
    current = _CURRENT.get()
    if current is not None:
        current.set(name, value)


def apart() -> Context | None:
    """The context of work that goes on when the current span has ended, and is no part of it. None: as it is."""
    current = _CURRENT.get()
    if current is None or current.root is current:
        return None
    found = copy_context()
    found.run(_CURRENT.set, current.root)
    return found


def keep(under: str) -> Callable[[], None]:
    """Let `span_of` find the current span, until what is returned is called."""
    current = _CURRENT.get()
    return _nothing if current is None else current.keep(under)


def with_traceparent(env: dict[str, str]) -> dict[str, str]:
    """The environment of a program that is a part of what is going on; its own word stays."""
    current = _CURRENT.get()
    if current is None or TRACEPARENT in env or not (parent := current.traceparent):
        return env
    return {TRACEPARENT: parent, **env}


def enter(current: Span | None) -> Token[Span | None]:
    """Make it the current one; `leave` takes it back."""
    return _CURRENT.set(current)


def leave(token: Token[Span | None]) -> None:
    try:
        _CURRENT.reset(token)
    except ValueError:
        pass  # a stream that was begun in one task and is closed in another: neither goes on with it


@contextmanager
def current(one: Span) -> Generator[Span]:
    """Make it the current one within the block."""
    token = enter(one)
    try:
        yield one
    finally:
        leave(token)


def parent_of(header: bytes | None) -> str:
    """A caller's `traceparent`; empty for none, and for what is none."""
    found = None if header is None or len(header) > 128 else _HEADER.fullmatch(header)
    if found is None or header is None or header[:2] == b"ff" or not int(found[1], 16) or not int(found[2], 16):
        return ""
    return f"00-{found[1].decode()}-{found[2].decode()}-{header[53:55].decode()}"


def _nothing() -> None:
    return
