"""The metrics of the audit trail and of webhooks; `Metrics` holds them, docs/audit.md tells what they count."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuditMetrics:
    """Counted by the services of `services/audit` and `services/webhooks`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._checkpoints = Counter("audit_checkpoints_total", "Checkpoints signed", registry=registry)
        self._requests = Counter("audit_requests_total", "Requests with an event of their own", registry=registry)
        self._dropped = Counter(
            "audit_requests_dropped_total", "Requests without one, because there were too many", registry=registry
        )
        self._streams = Gauge("event_streams", "Event streams that are open", registry=registry)
        self._deliveries = Counter(
            "webhook_deliveries_total", "Webhook calls, by how they ended", ("outcome",), registry=registry
        )
        self._disabled = Counter("webhooks_disabled_total", "Webhooks given up after a day", registry=registry)

    def checkpoint_made(self) -> None:
        self._checkpoints.inc()

    def requests_recorded(self, count: int) -> None:
        self._requests.inc(count)

    def requests_dropped(self, count: int) -> None:
        self._dropped.inc(count)

    def stream_opened(self) -> None:
        self._streams.inc()

    def stream_closed(self) -> None:
        self._streams.dec()

    def delivered(self, *, ok: bool) -> None:
        self._deliveries.labels("ok" if ok else "failed").inc()

    def webhook_disabled(self) -> None:
        self._disabled.inc()
