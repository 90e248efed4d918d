"""The Prometheus metrics of the server, with every label value bounded.

Services count sandboxes and commands, the HTTP middleware counts requests, and `/metrics` renders them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from atoll.telemetry.audit_metrics import AuditMetrics
from atoll.telemetry.gateway_metrics import GatewayMetrics
from atoll.telemetry.ledger_metrics import LedgerMetrics
from atoll.telemetry.model_metrics import ModelMetrics
from atoll.telemetry.task_metrics import TaskMetrics

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CREATE_BUCKETS_S = (0.001, 0.0025, *DURATION_BUCKETS_S, 30, 60)
SNAPSHOT_BUCKETS_BYTES = (2**10, 10 * 2**10, 100 * 2**10, 2**20, 10 * 2**20, 100 * 2**20, 2**30)
MAX_SANDBOX_LABELS = 1000
MAX_COMMAND_LABELS = 40
MAX_COUNTED_COMMANDS = 1000
COMMAND_LABEL_CHARS = 64
OTHER = "other"
UNMATCHED = "unmatched"
STATUSES = frozenset({*(status.value for status in HTTPStatus), 499})  # 499: the client has gone
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

prometheus_client.disable_created_metrics()  # their `_created` series are no part of the promised names


class CommandLabels:
    """Which command names get a label of their own: the most used ones, at most MAX_COMMAND_LABELS."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self.named: set[str] = set()

    def label(self, argv: Sequence[str]) -> tuple[str, str | None]:
        """(label for this use, a name that has just lost its label to this one, or None)."""
        name = os.path.basename(argv[0])[:COMMAND_LABEL_CHARS] if argv else OTHER
        uses = self._seen[name] = self._seen.get(name, 0) + 1
        if name in self.named:
            return name, None
        if len(self.named) < MAX_COMMAND_LABELS:
            self.named.add(name)
            return name, None
        if len(self._seen) > MAX_COUNTED_COMMANDS:
            self._forget_rare()
        least = min(self.named, key=lambda known: self._seen[known])
        if uses <= self._seen[least]:
            return OTHER, None
        self.named.remove(least)
        self.named.add(name)
        return name, least

    def _forget_rare(self) -> None:
        # Halving keeps the order among the frequent names and drops those seen once.
        self._seen = {name: uses // 2 or 1 for name, uses in self._seen.items() if uses > 1 or name in self.named}


class ExecCounts(Collector):
    """`sandbox_exec_total`. Ended sandboxes and rare commands fold into `other`, so that sums never fall."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {OTHER: {}}
        self._commands = CommandLabels()

    def count(self, sandbox_id: str, argv: Sequence[str]) -> None:
        command, displaced = self._commands.label(argv)
        if displaced is not None:
            for counts in self._counts.values():
                _add(counts, OTHER, counts.pop(displaced, 0))
        counts = self._counts.get(sandbox_id)
        if counts is None:
            full = len(self._counts) > MAX_SANDBOX_LABELS
            counts = self._counts[OTHER] if full else self._counts.setdefault(sandbox_id, {})
        _add(counts, command, 1)

    def forget(self, sandbox_id: str) -> None:
        for command, uses in self._counts.pop(sandbox_id, {}).items():
            _add(self._counts[OTHER], command, uses)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("sandbox_exec", "Commands run in sandboxes", labels=("sandbox_id", "command"))
        for sandbox_id, counts in self._counts.items():
            for command, uses in counts.items():
                family.add_metric((sandbox_id, command), uses)
        yield family


class WithoutTenants(Collector):
    """What everybody may see: the same numbers, and nobody's sandboxes or programs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            if "sandbox_id" in (family.samples[0].labels if family.samples else ()):
                yield _folded(family)
            else:
                yield family


def _folded(family: Metric) -> Metric:
    folded = CounterMetricFamily(family.name, family.documentation, labels=("sandbox_id", "command"))
    folded.add_metric((OTHER, OTHER), sum(sample.value for sample in family.samples))
    return folded


class DroppedUses(Collector):
    """`key_uses_dropped_total`, counted by the keys service and read when somebody looks."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("key_uses_dropped", "Uses of keys that were never logged", value=self._count())


def _add(counts: dict[str, int], command: str, uses: int) -> None:
    if uses:
        counts[command] = counts.get(command, 0) + uses


class Metrics:
    """One registry for each application, so that several can live in one process (tests do that)."""

    def __init__(self, *, tenants: bool = True) -> None:
        """Without `tenants` it names no sandbox and no program, whoever asks."""
        self._tenants = tenants
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.tasks = TaskMetrics(registry)
        self._created = Counter("sandbox_created_total", "Sandboxes created", registry=registry)
        self._create_duration = Histogram(
            "sandbox_create_duration_seconds",
            "How long it took to make sandboxes",
            buckets=CREATE_BUCKETS_S,
            registry=registry,
        )
        self.active = 0
        self._active = Gauge("sandbox_active", "Sandboxes that are live now", registry=registry)
        self._execs = ExecCounts()
        registry.register(self._execs)
        self._exec_duration = Histogram(
            "sandbox_exec_duration_seconds",
            "How long commands in sandboxes ran",
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._requests = Counter(
            "http_requests_total", "HTTP requests", ("method", "path", "status"), registry=registry
        )
        self._request_duration = Histogram(
            "http_request_duration_seconds",
            "How long HTTP requests took",
            ("method", "path"),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self._snapshots_created = Counter("snapshot_created_total", "Snapshots created", registry=registry)
        self._snapshots_restored = Counter("snapshot_restored_total", "Snapshots restored", registry=registry)
        self._snapshot_size = Histogram(
            "snapshot_size_bytes",
            "What the files of snapshots held when they were created",
            buckets=SNAPSHOT_BUCKETS_BYTES,
            registry=registry,
        )
        self._quota_violations = Counter(
            "quota_violations_total", "Requests refused for a quota", ("quota_type",), registry=registry
        )
        self._quota_warnings = Counter(
            "quota_warnings_total", "Quotas that came to be nearly used", ("quota_type",), registry=registry
        )
        self._blobs_copied = Counter("blobs_copied_total", "Objects copied to the second store", registry=registry)
        self._bytes_copied = Counter("blobs_copied_bytes_total", "Bytes copied to the second store", registry=registry)
        self._copies_failed = Counter(
            "blobs_copy_failures_total", "Copies to the second store that failed", registry=registry
        )
        self._blobs_healed = Counter("blobs_healed_total", "Objects put back from the second store", registry=registry)
        self._copy_objects = Gauge("blobs_copy_waiting", "Objects that the second store lacks", registry=registry)
        self._copy_bytes = Gauge("blobs_copy_waiting_bytes", "Bytes that the second store lacks", registry=registry)
        self._copy_lag = Gauge(
            "blobs_copy_lag_seconds", "How long the oldest of them has been stored", registry=registry
        )
        self._lost = Gauge("blobs_lost", "Objects that neither store has", registry=registry)
        self.audit = AuditMetrics(registry)
        self.gateway = GatewayMetrics(registry)
        self.ledger = LedgerMetrics(registry)
        self.models = ModelMetrics(registry)
        # `labels()` costs more than the increment itself: the children of known routes are kept at hand.
        self._request_children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def count_dropped_uses(self, count: Callable[[], int]) -> None:
        """Show what `count` says as `key_uses_dropped_total`; once."""
        self.registry.register(DroppedUses(count))

    def sandbox_created(self, duration_s: float = 0.0) -> None:
        self._created.inc()
        self._create_duration.observe(duration_s)

    def sandbox_ended(self, sandbox_id: str) -> None:
        """Its id is no label any more; what it counted moves to `other`."""
        self._execs.forget(sandbox_id)

    def set_active(self, count: int) -> None:
        self.active = count
        self._active.set(count)

    def exec_started(self, sandbox_id: str, argv: Sequence[str]) -> None:
        self._execs.count(sandbox_id, argv)

    def exec_ended(self, duration_s: float) -> None:
        self._exec_duration.observe(duration_s)

    def snapshot_created(self, size_bytes: int) -> None:
        self._snapshots_created.inc()
        self._snapshot_size.observe(size_bytes)

    def snapshot_restored(self) -> None:
        self._snapshots_restored.inc()

    def quota_exceeded(self, quota: str) -> None:
        """`quota` is one of the names that there are."""
        self._quota_violations.labels(quota).inc()

    def quota_warned(self, quota: str) -> None:
        self._quota_warnings.labels(quota).inc()

    def blob_copied(self, size_bytes: int) -> None:
        self._blobs_copied.inc()
        self._bytes_copied.inc(size_bytes)

    def copy_failed(self) -> None:
        self._copies_failed.inc()

    def blob_healed(self) -> None:
        self._blobs_healed.inc()

    def set_copy_lag(self, objects: int, size_bytes: int, lag_s: float, lost: int) -> None:
        self._copy_objects.set(objects)
        self._copy_bytes.set(size_bytes)
        self._copy_lag.set(lag_s)
        self._lost.set(lost)

    def request(self, method: str, path: str, status: int, duration_s: float) -> None:
        """`path` is a route's template or UNMATCHED, never what the client typed. A status that is none of HTTP's, as
        programs behind previews may answer with, counts as the class that it says."""
        told = str(status) if status in STATUSES else f"{status // 100}xx"
        key = (method, path, told)
        children = self._request_children.get(key)
        if children is None:
            bounded = method if method in METHODS else OTHER
            children = (
                self._requests.labels(bounded, path, told),
                self._request_duration.labels(bounded, path),
            )
            if method in METHODS:
                self._request_children[key] = children
        children[0].inc()
        children[1].observe(duration_s)

    def render(self, *, tenants: bool = True) -> bytes:
        """The text format that Prometheus scrapes; without `tenants` it names no sandbox and no program."""
        told = tenants and self._tenants
        return generate_latest(self.registry if told else WithoutTenants(self.registry))  # type: ignore[arg-type]
