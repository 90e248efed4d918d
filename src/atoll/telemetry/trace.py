"""The outermost ASGI layer: gives every request an id, counts it, times it and writes its line in the log.

app.py wraps the whole application in it; endpoints fill in what only they know (the template, the key).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.domain.origin import ORIGIN, Origin
from atoll.telemetry import logs, spans
from atoll.telemetry.metrics import METHODS, OTHER, UNMATCHED, Metrics

if TYPE_CHECKING:
    from atoll.telemetry.otlp import Traces

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_RESPONSES = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
QUIET = frozenset({"/health", "/health/ready", "/metrics"})  # asked for every few seconds by machines
SWITCHING_PROTOCOLS = 101
QUOTA_WARNING = b"atoll-quota-warning"


@dataclass(slots=True)
class Trace(Origin):
    """What is known about one request; it stands in the ASGI scope as `trace`, and is the origin of its events."""

    route: str = UNMATCHED  # the template, such as /v1/sessions/{id}
    sandbox_id: str | None = None
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])  # more, for the answer


def trace_of(scope: Scope) -> Trace:
    """The request's trace. Outside of `Tracing` (a bare endpoint in a test) a fresh one."""
    trace = scope.get("trace")
    if trace is None:
        trace = scope["trace"] = Trace(request_id=secrets.token_hex(8))
    return trace


class Tracing:
    """Pure ASGI, a few microseconds for a request. X-Request-Id is taken over when well formed, else made."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id, parent = _named(scope)
        trace = scope["trace"] = Trace(request_id=request_id)
        ORIGIN.set(trace)
        header = (b"x-request-id", trace.request_id.encode())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=trace.request_id)

        async def send_traced(message: Message) -> None:
            if message["type"] in _RESPONSES:
                trace.status = message.get("status", SWITCHING_PROTOCOLS)
                message["headers"] = [*message.get("headers", ()), header, *trace.headers]
                if trace.quota_warnings:
                    message["headers"].append((QUOTA_WARNING, ", ".join(trace.quota_warnings).encode()))
                if scope["type"] == "websocket":  # its life is no response time: count the handshake
                    self._count(scope, trace, perf_counter() - started)
            await send(message)

        try:
            if self._traces is not None and scope["path"] not in QUIET:
                await self._spanned(self._traces, scope, receive, send_traced, parent)
            elif parent:
                with spans.current(spans.Passed(parent)):
                    await self._app(scope, receive, send_traced)
            else:
                await self._app(scope, receive, send_traced)
        finally:
            duration_s = perf_counter() - started
            if scope["type"] == "http":
                self._count(scope, trace, duration_s)
            self._write(scope, trace, duration_s)

    async def _spanned(self, traces: Traces, scope: Scope, receive: Receive, send: Send, parent: str) -> None:
        """With a span of the request, which bears the template of its path and never the path."""
        trace: Trace = scope["trace"]
        method = _method(scope)
        with traces.request(method, scope, parent) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                span.set("name", f"{method} {trace.route}")
                span.set("http.route", trace.route)
                span.set("http.response.status_code", trace.status or 500)
                span.set("atoll.request_id", trace.request_id)
                if trace.key_id is not None:
                    span.set("atoll.key_id", trace.key_id)
                if trace.sandbox_id is not None:
                    span.set("atoll.sandbox_id", trace.sandbox_id)

    def _count(self, scope: Scope, trace: Trace, duration_s: float) -> None:
        self._metrics.request(_method(scope), trace.route, trace.status or 500, duration_s)

    def _write(self, scope: Scope, trace: Trace, duration_s: float) -> None:
        if trace.route in QUIET and trace.status < 400:
            return
        fields: dict[str, Any] = {
            "request_id": trace.request_id,
            "method": scope.get("method", "WEBSOCKET"),
            "route": trace.route,
            "status": trace.status,
            "duration_ms": round(duration_s * 1000, 3),
        }
        if trace.key_id is not None:
            fields["key_id"] = trace.key_id
        if trace.sandbox_id is not None:
            fields["sandbox_id"] = trace.sandbox_id
        if trace.peer is not None:
            fields["peer"] = trace.peer
        logs.request(fields)


def _named(scope: Scope) -> tuple[str, str]:
    """The request's id, and the span of its caller's that it is a part of."""
    request_id, parent = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = request_id or value
        elif name == b"traceparent":
            parent = parent or value
    taken = request_id is not None and _REQUEST_ID.fullmatch(request_id) is not None
    return request_id.decode() if taken and request_id else secrets.token_hex(8), spans.parent_of(parent)


def _method(scope: Scope) -> str:
    method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
    return method if method in METHODS else OTHER
