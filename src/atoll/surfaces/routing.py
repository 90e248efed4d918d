"""Turns declared operations into routes: one for each path, with its methods and its WebSocket.

The composition root makes the routes of all dialects with it. A route admits, calls the handler and maps errors, no
more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol, cast
from urllib.parse import unquote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from uvicorn.protocols.utils import ClientDisconnected

from atoll.domain.errors import AtollError, Internal
from atoll.domain.ids import SANDBOX_ID
from atoll.surfaces.door import Door
from atoll.surfaces.operation import WEBSOCKET, Handler, Operation, PublicHandler, SocketHandler
from atoll.surfaces.ways import CHOSEN
from atoll.telemetry.trace import trace_of

_log = structlog.get_logger("atoll.surface")
CLOSE_INTERNAL = 1011
REPLAYED = "idempotent-replayed"  # stands in an answer that was given before
_SLASH = "\0"  # in no name


class Dialect(Protocol):
    """How a family of routes speaks of errors."""

    @property
    def surface(self) -> str:
        """The name of the surface among the settings' `rates`."""
        ...

    def error(self, error: AtollError) -> Response: ...

    def method_not_allowed(self, allowed: list[str]) -> Response: ...

    def upgrade_required(self) -> Response: ...


class _Socket(WebSocket):
    """One that names, when it is accepted, the subprotocol that the door chose."""

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        await super().accept(subprotocol or self.scope.get(CHOSEN), headers)


class PathRoute(BaseRoute):
    """All operations of one path template."""

    def __init__(self, path: str, operations: list[Operation], door: Door, dialect: Dialect) -> None:
        self.path = path
        self.operations = tuple(operations)
        # names of files may have line ends, which `.` does not match and `$` ignores
        self._regex = re.compile(compile_path(path)[0].pattern, re.DOTALL)
        self._door = door
        self._dialect = dialect
        self._by_method = {operation.method: operation for operation in operations}
        self._allowed = sorted({"GET" if method == WEBSOCKET else method for method in self._by_method})

    @property
    def _socket(self) -> Operation | None:
        return self._by_method.get(WEBSOCKET)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] not in ("http", "websocket"):
            return Match.NONE, {}
        slashes = _encoded_slashes(scope)
        found = self._regex.fullmatch(slashes or scope["path"])
        if found is None:
            return Match.NONE, {}
        params = found.groupdict()
        if slashes is not None:
            params = {name: value.replace(_SLASH, "/") for name, value in params.items()}
        return Match.FULL, {"path_params": params}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        trace.route = self.path
        sandbox_id: str | None = scope["path_params"].get("id")
        if sandbox_id is not None and SANDBOX_ID.match(sandbox_id):
            trace.sandbox_id = sandbox_id
            structlog.contextvars.bind_contextvars(sandbox_id=sandbox_id)
        with self._door.watch(scope):
            if scope["type"] == "websocket":
                await self._handle_socket(scope, receive, send)
            else:
                await self._handle_request(scope, receive, send)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        replayed = False
        try:
            response = await self._respond(scope, receive, send)
            replayed = REPLAYED in response.headers
            await response(scope, receive, send)
        except ClientDisconnect:
            trace.status = trace.status or 499  # nginx's word for it; nobody reads an answer
        finally:
            if not replayed:
                self._note_outcome(scope, scope["method"], trace.status)
            if trace.key_id is not None:
                self._door.note_use(scope, trace.key_id, trace.status)

    def _note_outcome(self, scope: Scope, method: str, status: int) -> None:
        operation = self._by_method.get(method)
        if operation is not None and operation.changes:
            self._door.note_outcome(scope, operation.id, status)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> Response:
        operation = self._by_method.get(scope["method"])
        if operation is None and scope["method"] == "HEAD":  # monitors ask so; what is public is small
            found = self._by_method.get("GET")
            operation = found if found is not None and found.public else None
        request = Request(scope, receive, send)
        try:
            if operation is None:
                return await self._refuse_method(scope)
            if operation.public:
                await self._door.admit_anyone(scope, self._rates(operation))
                return await cast(PublicHandler, operation.handler)(request)
            principal = await self._door.admit(scope, self._rates(operation), operation.ways)
            if scope["query_string"]:
                operation.check_query(request)
            return await cast(Handler, operation.handler)(request, principal)
        except AtollError as error:
            if isinstance(error, Internal):
                _log.error("fault", exc_info=error)
            return self._dialect.error(error)
        except ClientDisconnect:
            raise
        except Exception as error:
            _log.error("fault", exc_info=error)
            return self._dialect.error(Internal())

    def _rates(self, operation: Operation) -> tuple[str, ...]:
        return (self._dialect.surface, *operation.rates)

    async def _refuse_method(self, scope: Scope) -> Response:
        """405 or 426, but to nobody without a credential: what exists behind the door is not told outside."""
        if all(operation.public for operation in self.operations):
            await self._door.admit_anyone(scope, (self._dialect.surface,))
        else:
            await self._door.admit(scope, (self._dialect.surface,), self.operations[0].ways)
        if scope["type"] == "http" and scope["method"] == "GET" and self._socket is not None:
            return self._dialect.upgrade_required()
        return self._dialect.method_not_allowed(self._allowed)

    async def _handle_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = _Socket(scope, receive, send)
        status = 101
        try:
            await socket.receive()  # websocket.connect
            operation = self._socket
            if operation is None:
                response = await self._refuse_method(scope)
                status = response.status_code
                await socket.send_denial_response(response)
                return
            principal = await self._door.admit(scope, self._rates(operation), operation.ways)
            if scope["query_string"]:
                operation.check_query(socket)
            with self._door.socket(principal):
                await cast(SocketHandler, operation.handler)(socket, principal)
        except (WebSocketDisconnect, ClientDisconnected):
            pass  # the second comes from a client that went away before the upgrade
        except Exception as error:
            if not isinstance(error, AtollError) or isinstance(error, Internal):
                _log.error("fault", exc_info=error)
            response = self._dialect.error(error if isinstance(error, AtollError) else Internal())
            status = response.status_code
            with suppress(WebSocketDisconnect, ClientDisconnected):
                await _end_socket(socket, response)
        finally:
            trace = trace_of(scope)
            self._note_outcome(scope, WEBSOCKET, status)
            if trace.key_id is not None:
                self._door.note_use(scope, trace.key_id, status)


def _encoded_slashes(scope: Scope) -> str | None:
    """The path with what stands for `/` inside a part of it, as in `OWNER%2FNAME`; None when nothing does."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower():
        return None
    parts = raw.decode("latin-1").split("/")
    return "/".join(unquote(part).replace("/", _SLASH) for part in parts)


async def _end_socket(socket: WebSocket, response: Response) -> None:
    """Before the upgrade an error is an HTTP response; after it, a close code."""
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.send_denial_response(response)
    elif socket.application_state is WebSocketState.CONNECTED:
        await socket.close(CLOSE_INTERNAL, "internal error")


def routes(operations: Iterable[Operation], door: Door, dialect: Dialect) -> list[PathRoute]:
    """One route for each path, in the order in which the paths first appear."""
    by_path: dict[str, list[Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, []).append(operation)
    return [PathRoute(path, found, door, dialect) for path, found in by_path.items()]


def unserved(answer: Callable[[], Response]) -> ASGIApp:
    """What a router does where it has no route: answers so, to who asks for a WebSocket too."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(answer())
        else:
            await answer()(scope, receive, send)

    return refuse
