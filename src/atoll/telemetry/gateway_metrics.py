"""The metrics of the egress gateway; `Metrics` holds them, docs/operations.md tells what they count."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

REASONS = ("list", "inside", "unreachable", "name", "quota", "secret", "request", "streams")


class GatewayMetrics:
    """Counted by `gateway/egress.py`, and by the gates service where there are too many streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        what = "Connections out of sandboxes that were refused or cut"
        self._refused = Counter("egress_refused_total", what, ("reason",), registry=registry)
        for reason in REASONS:  # each is seen from the start, as a zero
            self._refused.labels(reason)

    def refused(self, reason: str) -> None:
        """`reason` is one of REASONS."""
        self._refused.labels(reason).inc()
