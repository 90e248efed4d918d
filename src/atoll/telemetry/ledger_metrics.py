"""The metrics of money; `Metrics` holds them, docs/ledger.md tells what they count."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge


class LedgerMetrics:
    """Counted by the services of `services/ledger`. Amounts are micro-dollars."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self._transfers = Counter("ledger_transfers_total", "Transfers, by kind", ("kind",), registry=registry)
        self._moved = Counter(
            "ledger_transferred_micro_usd_total", "What they moved, in micro-dollars", ("kind",), registry=registry
        )
        self._holds = Counter("ledger_holds_total", "Holds, by what became of them", ("outcome",), registry=registry)
        self._refused = Counter(
            "ledger_refusals_total", "What was refused for want of money, by error code", ("code",), registry=registry
        )
        self._lost = Counter(
            "ledger_lost_micro_usd_total",
            "What was used beyond what the payer had: the operator's loss, in micro-dollars",
            registry=registry,
        )
        self._warnings = Counter(
            "budget_warnings_total",
            "Marks of limits and budgets that were passed",
            ("bound", "percent"),
            registry=registry,
        )
        self._problems = Gauge("ledger_problems", "What the last proof of the ledger found wrong", registry=registry)
        self._proved_at = Gauge(
            "ledger_proved_timestamp_seconds", "When the ledger was proved the last time; 0: not yet", registry=registry
        )
        self._late = Counter(
            "ledger_settled_late_total",
            "Charges that had to be tried again for a database that was down",
            registry=registry,
        )

    def transferred(self, kind: str, micro_usd: int) -> None:
        self._transfers.labels(kind).inc()
        self._moved.labels(kind).inc(micro_usd)

    def held(self, outcome: str, count: int = 1) -> None:
        """`outcome`: taken, posted, voided or expired."""
        self._holds.labels(outcome).inc(count)

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def lost(self, micro_usd: int) -> None:
        self._lost.inc(micro_usd)

    def warned(self, bound: str, percent: int) -> None:
        self._warnings.labels(bound, str(percent)).inc()

    def proved(self, problems: int, at: datetime) -> None:
        self._problems.set(problems)
        self._proved_at.set(at.timestamp())

    def settled_late(self) -> None:
        self._late.inc()
