"""The model gateway: OpenAI's and Anthropic's APIs on the loopback of a task's sandbox, as an ASGI application.

The task is known by the connection (`LIVE` in the scope); whatever credential a program sends goes no further than
here. `services/model_calls.py` does what costs.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

import structlog
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from atoll.domain.errors import AtollError
from atoll.gateway.http import Http, HttpStreams
from atoll.services.lives import Live
from atoll.services.model_calls import ModelCalls
from atoll.services.models.dialects import Dialect, Kind, dialect_of
from atoll.services.models.passing import BETA, ModelAnswer
from atoll.services.models.refusals import Because, CallRefused
from atoll.services.models.requests import ModelRequest

_log = structlog.get_logger()
LIVE = "atoll.live"
SEND_S = 120.0  # for the program to take what it is sent
# for the rest of an answer that a program has left, which tells what it cost; less than a server that stops waits
READ_ON_S = 4


class _Gone(Exception):
    """The program has hung up, or takes nothing any more."""


class _Config(Protocol):
    def __call__(self, app: Any) -> Any: ...


def model_streams(calls: ModelCalls, config: _Config, http: Http) -> HttpStreams:
    """The model gateway, to be handed streams; `config` makes uvicorn's for an application."""
    app = ModelGateway(calls)

    def known(live: Live, scope: Any) -> None:
        scope[LIVE] = live

    return HttpStreams(app, config(app), http, known)


class ModelGateway:
    """One for all sandboxes."""

    def __init__(self, calls: ModelCalls) -> None:
        self._calls = calls
        self._held_bytes = 0  # of requests that are being read, or wait for their answers
        self._held_by = Counter[str]()  # of those, by account

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        kind = _kind(scope.get("path", ""), headers)
        anthropic = kind is Kind.ANTHROPIC
        if scope["type"] == "websocket":
            await _refuse_upgrade(scope, receive, send, anthropic)
            return
        exchange = _Exchange(receive, send)
        try:
            await self._serve(scope, headers, kind, exchange)
        except _Gone:
            pass
        except CallRefused as error:
            self._calls.refused(error.because)
            await exchange.refuse(error, anthropic, scope["path"])
        except TimeoutError:
            silent = CallRefused(Because.SILENT, "the model's provider did not answer in time")
            await exchange.refuse(silent, anthropic, scope["path"])
        except AtollError as error:
            _log.warning("models.fault", sandbox_id=scope[LIVE].sandbox.id, error=error.message)
            fault = CallRefused(Because.FAULT, "the call could not be made; try again")
            await exchange.refuse(fault, anthropic, scope["path"])
        except Exception:
            _log.exception("models.fault", sandbox_id=scope[LIVE].sandbox.id)
            fault = CallRefused(Because.FAULT, "the call could not be made; try again")
            await exchange.refuse(fault, anthropic, scope["path"])
        finally:
            self._held_bytes -= exchange.held_bytes
            self._held_by[exchange.account] -= exchange.held_bytes
            if not self._held_by[exchange.account]:
                del self._held_by[exchange.account]

    async def _serve(self, scope: Any, headers: Mapping[str, str], kind: Kind, exchange: _Exchange) -> None:
        dialect, method = dialect_of(scope["path"]), scope["method"]
        if dialect is None or method != ("GET" if dialect is Dialect.MODELS else "POST"):
            if "upgrade" in headers:
                raise CallRefused(Because.UPGRADE, "ask over HTTP, without an upgrade")
            raise CallRefused(Because.UNKNOWN, f"{method} {scope['path'][:200]} is not served here")
        sandbox = scope[LIVE].sandbox
        async with self._calls.admitted(sandbox) as payer:  # before a byte of the body is read
            exchange.account = payer.account
            body = b"" if dialect is Dialect.MODELS else await self._body(exchange, headers)
            if not dialect.metered:
                async with self._calls.look(sandbox, dialect, kind, body, headers) as answer:
                    await exchange.pass_on(answer)
                return
            asked = ModelRequest(dialect, body, self._calls.limits)
            beta = BETA.encode() in scope["query_string"].split(b"&")
            del body
            call = self._calls.call(sandbox, asked, headers, beta=beta)
            async with exchange.cut_when_gone(lambda: self._calls.runs(sandbox)), call as answer:
                await exchange.pass_on(answer)

    async def _body(self, exchange: _Exchange, headers: Mapping[str, str]) -> bytes:
        limits = self._calls.limits
        if "content-encoding" in headers:
            raise CallRefused(Because.REQUEST, "the body must not be compressed", field="Content-Encoding")
        said = headers.get("content-length", "")
        if said.isdecimal() and int(said) > limits.request_bytes:
            raise _too_large(limits.request_bytes)
        share = max(limits.account_held_bytes, limits.request_bytes)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(limits.body_s):
                while (part := await exchange.next_part()) is not None:
                    exchange.held_bytes += len(part)
                    self._held_bytes += len(part)
                    self._held_by[exchange.account] += len(part)
                    if exchange.held_bytes > limits.request_bytes:
                        raise _too_large(limits.request_bytes)
                    if self._held_bytes > limits.held_bytes or self._held_by[exchange.account] > share:
                        raise CallRefused(Because.BUSY, "too many large requests at once", retry_after_s=5)
                    parts.append(part)
        except TimeoutError:
            raise CallRefused(Because.REQUEST, f"the body did not come within {limits.body_s:g} s") from None
        return b"".join(parts)


class _Exchange:
    """One request and its answer over ASGI."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._read = False  # the body, whole
        self._begun = self._streams = False  # the answer; it consists of events
        self._done = self._gone = False  # the answer is whole; the program hung up before
        self.held_bytes = 0
        self.account = ""

    async def next_part(self) -> bytes | None:
        """Of the body; None at its end."""
        if self._read:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        if not message.get("more_body", False):
            self._read = True
        return message.get("body", b"")

    @asynccontextmanager
    async def cut_when_gone(self, runs: Callable[[], Awaitable[bool]]) -> AsyncGenerator[None]:
        """Cancels what is done here when the program hangs up: the call costs nothing more then. An answer that had
        begun is read on for a moment, while its task `runs`: the last event is the one that tells what it cost."""
        asking = asyncio.current_task()
        assert asking is not None

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._gone = True
            for _ in range(READ_ON_S if self._begun and not self._done else 0):
                await asyncio.sleep(1)
                if not await runs():
                    break
            if not self._done:
                asking.cancel()

        watching = asyncio.create_task(watch(), name="waits for the program to hang up")
        try:
            yield
        except asyncio.CancelledError:
            if self._gone and asking.uncancel() == 0:
                raise _Gone from None
            raise
        finally:
            watching.cancel()

    async def pass_on(self, answer: ModelAnswer) -> None:
        async with aclosing(answer.pieces) as pieces:
            streams = "text/event-stream" in answer.headers.get("content-type", "")
            first = b"" if streams else await anext(pieces, None)
            headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
            self._begun, self._streams = True, streams
            await self._say({"type": "http.response.start", "status": answer.status, "headers": headers})
            if first:
                await self._say({"type": "http.response.body", "body": first, "more_body": True})
            async for piece in pieces:
                await self._say({"type": "http.response.body", "body": piece, "more_body": True})
            self._done = True
            await self._say({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, error: CallRefused, anthropic: bool, path: str) -> None:
        """In the provider's form; within a stream as its last event, so that the program knows why it ends. Any other
        answer that has begun breaks off."""
        self._done = True
        if self._begun and not self._streams:
            return
        try:
            if self._streams:
                await self._say({"type": "http.response.body", "body": _event(error, path), "more_body": False})
                return
            headers = [(b"content-type", b"application/json")]
            if error.retry_after_s is not None:
                headers.append((b"retry-after", str(error.retry_after_s).encode()))
            if error.because in (Because.MONEY, Because.TASK_OVER, Because.NOT_SET_UP, Because.SILENT):
                headers.append((b"x-should-retry", b"false"))  # which both makers' clients follow
            body = json.dumps(error.body(anthropic)).encode()
            headers.append((b"content-length", str(len(body)).encode()))
            status = error.status(anthropic)
            await self._say({"type": "http.response.start", "status": status, "headers": headers})
            await self._say({"type": "http.response.body", "body": body, "more_body": False})
        except _Gone:
            pass

    async def _say(self, message: dict[str, Any]) -> None:
        if self._gone:
            return  # nobody hears it
        try:
            async with asyncio.timeout(SEND_S):
                await self._send(message)
        except (TimeoutError, OSError):
            raise _Gone from None


def _kind(path: str, headers: Mapping[str, str]) -> Kind:
    dialect = dialect_of(path)
    if dialect is None or dialect is Dialect.MODELS:
        return Kind.ANTHROPIC if "anthropic-version" in headers else Kind.OPENAI
    return dialect.kind


async def _refuse_upgrade(scope: Any, receive: Any, send: Any, anthropic: bool) -> None:
    """At once: Codex asks over HTTP then."""
    error = CallRefused(Because.UPGRADE, "ask over HTTP, without an upgrade")
    response = JSONResponse(error.body(anthropic), error.status(anthropic))
    await WebSocket(scope, receive, send).send_denial_response(response)


def _event(error: CallRefused, path: str) -> bytes:
    """The last of a stream; what came before it may have ended in the middle of a line."""
    dialect = dialect_of(path)
    if dialect is Dialect.RESPONSES:
        named = {"code": error.because.value[2] or "server_error", "message": error.message}
        response = {"id": "", "object": "response", "status": "failed", "error": named}
        name, data = "response.failed", {"type": "response.failed", "response": response}
    else:
        name, data = "error", error.body(dialect is Dialect.MESSAGES)
    head = b"" if dialect is Dialect.CHAT else f"event: {name}\n".encode()
    return b"\n\n" + head + b"data: " + json.dumps(data).encode() + b"\n\n"


def _too_large(limit: int) -> CallRefused:
    return CallRefused(Because.TOO_LARGE, f"the body is larger than {limit} bytes")
