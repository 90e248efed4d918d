"""The metrics of tasks; `Metrics` holds them, docs/tasks.md tells what they count."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400)


class TaskMetrics:
    """Counted by the services of `services/tasks`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter("tasks_ended_total", "Tasks, by why they ended", ("agent", "reason"), registry=registry)
        self._running = Gauge("tasks_running", "Tasks that this server runs", registry=registry)
        self._waiting = Gauge("tasks_waiting", "Tasks that wait for their turn", registry=registry)
        self._duration = Histogram(
            "task_duration_seconds", "From a task's turn to its end", buckets=DURATION_BUCKETS_S, registry=registry
        )
        self._waited = Histogram(
            "task_wait_seconds", "From a task's request to its turn", buckets=DURATION_BUCKETS_S, registry=registry
        )

    def ended(self, agent: str, reason: str, duration_s: float | None) -> None:
        """`duration_s` None: its turn never came."""
        self._ended.labels(agent, reason).inc()
        if duration_s is not None:
            self._duration.observe(max(0.0, duration_s))

    def begun(self, waited_s: float) -> None:
        self._waited.observe(max(0.0, waited_s))

    def queue(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)
