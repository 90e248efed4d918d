"""Traces for an OpenTelemetry collector: spans leave in batches, over OTLP and HTTP, behind what they tell of.

`opentelemetry-sdk` is loaded here and in `span_queue`, and only where the settings want traces.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect
from starlette.types import Scope
from starlette.websockets import WebSocketDisconnect

from atoll.domain.errors import AtollError, InvalidInput
from atoll.telemetry.spans import Span, Value, current

KEPT_MAX = 10_000  # spans that later work is a part of: tasks that wait or run
PATH = "/v1/traces"
CUT_SHORT = (asyncio.CancelledError, GeneratorExit, ClientDisconnect, WebSocketDisconnect)
MISSING = "traces need OpenTelemetry: pip install '.[otel]' in Atoll's checkout"


class Traces:
    """Where all spans of a server come from; as a `Span` it is what nothing else is a part of."""

    traceparent = ""

    def __init__(
        self,
        endpoint: str,
        *,
        service_name: str,
        version: str,
        sample_ratio: float = 1.0,
        headers: Mapping[str, str] | None = None,
        trusted: Sequence[IPv4Network | IPv6Network] = (),
        queue_spans: int = 2048,
        timeout_s: float = 10.0,
        delay_s: float = 5.0,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """InvalidInput without the libraries. `trusted`: whose `traceparent` our spans are parts of."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

            from atoll.telemetry.span_queue import SpanQueue
        except ImportError:
            raise InvalidInput(MISSING, field="traces.enabled") from None
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what it has to say of a collector, we say once
        where = endpoint if endpoint.rstrip("/").endswith(PATH) else endpoint.rstrip("/") + PATH
        exporter = OTLPSpanExporter(endpoint=where, headers=dict(headers or {}), timeout=timeout_s)  # pyright: ignore[reportArgumentType]
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource({"service.name": service_name, "service.version": version}),
            shutdown_on_exit=False,
        )
        queue = SpanQueue(
            exporter,
            where,
            registry or CollectorRegistry(),
            spans_max=queue_spans,
            delay_s=delay_s,
            timeout_s=timeout_s,
        )
        self._provider.add_span_processor(queue)
        self.tracer: Any = self._provider.get_tracer("atoll", version)
        self._trusted = tuple(trusted)
        self._kept: OrderedDict[str, Span] = OrderedDict()

    @contextmanager
    def request(self, method: str, scope: Scope, parent: str) -> Generator[Span]:
        """The span of a request, a part of its caller's where the caller is trusted."""
        trusted = bool(parent) and self._trusts(scope)
        kind = _kinds().SERVER
        with self._begun(f"{method} request", {"http.request.method": method}, parent if trusted else "", kind) as span:
            yield span

    @property
    def root(self) -> Span:
        return self

    def child(self, name: str, attributes: dict[str, Value]) -> Any:
        return self._begun(name, attributes, "", _kinds().INTERNAL)

    def set(self, name: str, value: Value) -> None:
        return

    def keep(self, under: str | None) -> Callable[[], None]:
        return lambda: None

    def kept(self, under: str) -> Span:
        return self._kept.get(under, self)

    def remember(self, under: str, span: Span) -> Callable[[], None]:
        """Find `span` under that name from now on; the oldest ones are forgotten when there are too many."""
        self._kept[under] = span
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

        def forget() -> None:
            if self._kept.get(under) is span:
                del self._kept[under]

        return forget

    async def close(self, within_s: float) -> None:
        """Send what is left, and wait for that so long. A collector that hangs holds up a thread that nobody joins."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await sent.wait()

    @contextmanager
    def _begun(self, name: str, attributes: dict[str, Value], parent: str, kind: Any) -> Generator[Span]:
        with begun(self, name, attributes, _remote(parent), kind) as span:
            yield span

    def _trusts(self, scope: Scope) -> bool:
        client = scope.get("client")
        try:
            address = ip_address(client[0]) if client else None
        except ValueError:
            return False
        return address is not None and any(address in network for network in self._trusted)


class _Going:
    """One span of the library's."""

    def __init__(self, traces: Traces, span: Any) -> None:
        self._traces = traces
        self._span = span

    @property
    def traceparent(self) -> str:
        found = self._span.get_span_context()
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags & 1:02x}"

    @property
    def root(self) -> Span:
        return self._traces

    def child(self, name: str, attributes: dict[str, Value]) -> Any:
        return begun(self._traces, name, attributes, self._span, _kinds().INTERNAL)

    def set(self, name: str, value: Value) -> None:
        if name == "name":
            self._span.update_name(value)
        else:
            self._span.set_attribute(name, value)

    def keep(self, under: str | None) -> Callable[[], None]:
        return (lambda: None) if under is None else self._traces.remember(under, self)

    def kept(self, under: str) -> Span:
        found = self._traces.kept(under)
        return self if found is self._traces else found


@contextmanager
def begun(traces: Traces, name: str, attributes: dict[str, Value], parent: Any | None, kind: Any) -> Generator[Span]:
    """A span of the block, a part of `parent`. Of an error it tells the kind: its text may name what is a tenant's.
    What was cut short, by a client that went away say, did not fail."""
    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    within = Context() if parent is None else set_span_in_context(parent, Context())
    span = traces.tracer.start_span(name, context=within, kind=kind, attributes=attributes)
    going = _Going(traces, span)
    try:
        with current(going):
            yield going
    except CUT_SHORT:
        span.set_attribute("atoll.cut_short", True)
        raise
    except BaseException as error:
        span.set_attribute("error.type", error.code if isinstance(error, AtollError) else type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        span.end()


def _remote(parent: str) -> Any | None:
    """What stands for a caller's span."""
    if not parent:
        return None
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    _, trace_id, span_id, flags = parent.split("-")
    sampled = TraceFlags(int(flags, 16) & TraceFlags.SAMPLED)
    return NonRecordingSpan(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=sampled))


def _kinds() -> Any:
    from opentelemetry.trace import SpanKind

    return SpanKind
