"""Bytes in and out of HTTP requests, each with a bound and a deadline; handlers of every dialect use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atoll.domain.errors import AtollError, DeadlineExceeded, InvalidInput, TooLarge

_log = structlog.get_logger("atoll.surface")
BODY_S = 30.0  # for a whole JSON body
CHUNK_S = 60.0  # for the next bytes of an upload
LINGER_S, LINGER_BYTES = 2.0, 64 * 2**20  # of a body that was refused
ERRORS_MAX = 20  # told of one body

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class Invalid(InvalidInput):
    """A body that does not fit its model; `errors` has one (field, message) for each thing that is wrong.

    `details` are the same as pydantic tells them, without what was in the body.
    """

    def __init__(self, errors: list[tuple[str, str]], details: Sequence[ErrorDetails] = ()) -> None:
        self.errors = errors
        self.details = details
        text = "; ".join(f"{field}: {message}" if field else message for field, message in errors[:5])
        super().__init__(text, field=errors[0][0] if errors else None)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. TooLarge beyond the limit, DeadlineExceeded when it does not come."""
    _check_length(request, limit_bytes)
    parts: list[bytes] = []
    size = 0
    more = True
    try:
        async with asyncio.timeout(BODY_S):
            while more:  # not `request.stream()`: this is the hot path, and most bodies are one message
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > limit_bytes:
                    raise TooLarge(f"the body is larger than {limit_bytes} bytes")
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError:
        raise DeadlineExceeded(f"the body did not arrive within {BODY_S:g} s") from None
    return b"".join(parts)


async def read_model(
    request: Request, model: type[M], limit_bytes: int, *, optional: bool = False, surrogates: bool = False
) -> M:
    """The JSON body as a model. Invalid names every field that is wrong, and never repeats what was in it.

    `surrogates`: text may hold lone ones, which stand for bytes that are no UTF-8; the model says which fields may.
    """
    body = await read_body(request, limit_bytes)
    if not body and optional:
        body = b"{}"
    try:
        if surrogates and b"\\u" in body:
            return model.model_validate(_loads(body))
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_MAX]
        raise Invalid([_plain(model, detail) for detail in found], found) from None


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not JSON") from None


def upload(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces as they come, never held as a whole. TooLarge at once when its length says so."""
    _check_length(request, limit_bytes)
    return _pieces(request, limit_bytes)


async def _pieces(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(CHUNK_S):
                part = await anext(stream, None)
        except ClientDisconnect:
            raise InvalidInput("the upload broke off") from None  # nobody hears it; the services clean up
        except TimeoutError:
            raise DeadlineExceeded(f"no bytes of the upload arrived for {CHUNK_S:g} s") from None
        if part is None:
            return
        size += len(part)
        if size > limit_bytes:
            raise TooLarge(f"the upload is larger than {limit_bytes} bytes")
        if part:
            yield part


def _check_length(request: Request, limit_bytes: int) -> None:
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > limit_bytes:
        raise TooLarge(f"the body is larger than {limit_bytes} bytes")


def _plain(model: type[BaseModel], detail: ErrorDetails) -> tuple[str, str]:
    field = ".".join(str(part) for part in _without_branch(model, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return field, "unknown field"
    if detail["type"] == "missing":
        return field, "required"
    return field, detail["msg"].removeprefix("Value error, ")


def _without_branch(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where in the body something is: pydantic names the branch too, of a field that may be of several kinds."""
    info = model.model_fields.get(str(loc[0])) if loc else None
    if info is None or get_origin(info.annotation) not in (Union, UnionType):
        return loc
    kinds = [kind for kind in get_args(info.annotation) if kind is not NoneType]
    return loc[:1] + loc[2:] if len(kinds) > 1 else loc


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON; dates as RFC 3339."""
    return Response(json_bytes(value), status, headers, "application/json")


def json_bytes(value: Any) -> bytes:
    """`value` as JSON; names that are no UTF-8 as lone surrogates, escaped."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(value, separators=(",", ":"), default=lambda moment: json.loads(to_json(moment))).encode()


class Lingering(Response):
    """A refusal of a body that is still coming: reads on for a little, so that the client reads the refusal.

    A connection closed with unread bytes is reset, and a reset may overtake the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
                    left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Stream(Response):
    """Sends pieces as they come and stops, closing their source, when the client goes away.

    Ready-made streaming responses leave a source that is suspended at its `yield` to the garbage collector.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/octet-stream",
        size: int | None = None,
        status: int = 200,
    ) -> None:
        self._pieces = pieces
        self.status_code = status
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)
        if size is not None:
            self.headers["content-length"] = str(size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def deliver() -> None:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await unless_disconnected(receive, deliver())
        except AtollError as error:
            # The status is out already: all that can tell the client is a body that breaks off.
            _log.info("stream.cut", error=error.message)
        finally:
            await close_iterator(self._pieces)


class _Begun:
    """An iterator whose first item is there already."""

    def __init__(self, first: bytes | None, rest: AsyncIterator[bytes]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> bytes:
        if self._first is None:
            return await anext(self._rest)
        first, self._first = self._first, None
        return first

    async def aclose(self) -> None:
        await close_iterator(self._rest)


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces; what goes wrong before the first is raised here, where an answer can still have its status."""
    try:
        return _Begun(await anext(pieces, None), pieces)
    except BaseException:
        await close_iterator(pieces)
        raise


async def at_most(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The pieces up to the size that was promised: a file may grow while it is read."""
    left = size
    try:
        async for piece in pieces:
            if len(piece) > left:
                piece = piece[:left]
            left -= len(piece)
            if piece:
                yield piece
            if not left:
                return
    finally:
        await close_iterator(pieces)


async def close_iterator(pieces: AsyncIterator[Any]) -> None:
    """Close it where it can be closed."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away first: ClientDisconnect then.

    To be called once the body has been read, since it listens for what comes after.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()
