"""Spans that wait for the collector, in a bounded queue, and leave in batches; what becomes of each is counted.

`otlp` puts them here. This module loads `opentelemetry-sdk`, and is loaded only where the settings want traces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import structlog
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter

_log = structlog.get_logger("atoll.traces")

BATCH_SPANS = 512
TELL_S = 60.0  # between two lines in the log


class SpanQueue(SpanProcessor):
    """No span ever makes its request wait: what finds the queue full is dropped."""

    def __init__(
        self,
        exporter: SpanExporter,
        where: str,
        registry: CollectorRegistry,
        *,
        spans_max: int,
        delay_s: float,
        timeout_s: float,
    ) -> None:
        self._counts = Counter("trace_spans_total", "Spans, by what became of them", ("outcome",), registry=registry)
        self._where = where
        self._most = spans_max
        self._lock = threading.Lock()  # requests end on the event loop, batches leave from a thread
        self._waiting = 0
        self._lost = 0  # that the log does not know of yet
        self._told_at = float("-inf")
        # It drops what does not fit as well, without a count: `_waiting` keeps it from having to.
        self._batches = BatchSpanProcessor(
            _Leaving(exporter, self),
            max_queue_size=spans_max,
            max_export_batch_size=min(BATCH_SPANS, spans_max),
            schedule_delay_millis=delay_s * 1000,
            export_timeout_millis=timeout_s * 1000,
        )

    def on_end(self, span: ReadableSpan) -> None:
        if not (span.context and span.context.trace_flags.sampled):
            return
        with self._lock:
            full = self._waiting >= self._most
            self._waiting += not full
        if full:
            self._lose("dropped", 1)
        else:
            self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)

    def leave(self, spans: int) -> None:
        """So many wait no longer: they are on their way."""
        with self._lock:
            self._waiting -= spans

    def arrive(self, spans: int, ok: bool) -> None:
        """The collector took them, or did not."""
        if ok:
            self._counts.labels("exported").inc(spans)
        else:
            self._lose("failed", spans)

    def _lose(self, outcome: str, spans: int) -> None:
        self._counts.labels(outcome).inc(spans)
        now = time.monotonic()
        with self._lock:
            self._lost += spans
            if now - self._told_at < TELL_S:
                return
            lost, self._lost, self._told_at = self._lost, 0, now
        _log.warning("traces.not_sent", endpoint=self._where, spans=lost)


class _Leaving(SpanExporter):
    """The exporter, which tells the queue of each batch."""

    def __init__(self, exporter: SpanExporter, queue: SpanQueue) -> None:
        self._exporter = exporter
        self._queue = queue

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._queue.leave(len(spans))
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._queue.arrive(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
