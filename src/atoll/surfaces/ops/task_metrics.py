"""`/metrics` as JSON: how everybody's tasks of the last day went, as Testbase tells it; the ops routes serve it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request

from atoll.services.tasks.history import TaskStatistics
from atoll.surfaces.models import AnswerModel

ERRORS_MAX = 10
JSON = "application/json"


class TaskErrorAnswer(AnswerModel):
    """`error` is the reason in one word: whose it was, and what it said, is told to nobody here."""

    timestamp: datetime
    error: str
    workspaceId: str | None


class TaskMetricsAnswer(AnswerModel):
    """Of tasks that ended within 24 hours, the newest thousand at most; `averageDuration` in milliseconds."""

    totalTasks: int
    successfulTasks: int
    failedTasks: int
    successRate: float
    averageDuration: int
    recentErrors: list[TaskErrorAnswer]
    activeSessions: int


def wants_json(request: Request) -> bool:
    """Whether the client names JSON: collectors of Prometheus do not."""
    kinds = ",".join(request.headers.getlist("accept")).lower().split(",")
    return any(kind.partition(";")[0].strip() == JSON for kind in kinds)


def figures(found: TaskStatistics) -> dict[str, Any]:
    failed = found.failed
    return {
        "totalTasks": len(found.ended),
        "successfulTasks": found.succeeded,
        "failedTasks": len(failed),
        "successRate": round(found.success_percent, 2),
        "averageDuration": round(found.average_s * 1000),
        "recentErrors": [
            {"timestamp": one.ended_at, "error": "fault" if one.end is None else one.end.value, "workspaceId": None}
            for one in failed[:ERRORS_MAX]
        ],
        "activeSessions": found.active_threads,
    }
