"""What operators and machines ask a service for that has a port of its own, each in the form of the system it is from.

`surfaces.listeners` puts these beside the service's own routes, in place of those of the port that serves everything.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from atoll.services.tasks.history import TaskHistory
from atoll.surfaces.bodies import json_response
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.ops.health import Check, Health, TaskFigures, ThreadCache
from atoll.surfaces.ops.routes import TAG, rendered
from atoll.surfaces.ops.task_metrics import TaskMetricsAnswer, figures
from atoll.telemetry.metrics import Metrics

Status = Literal["healthy", "unhealthy"]
Shape = Callable[[bool, dict[str, Any]], dict[str, Any]]
TESTBASE = ("status", "project", "timestamp", "uptime", "checks", "metrics", "threadCache")


class TestbaseHealthAnswer(AnswerModel):
    """Testbase's."""

    __test__ = False
    status: Status
    project: str
    timestamp: datetime
    uptime: int
    checks: dict[str, Check]
    metrics: TaskFigures | None = None
    threadCache: ThreadCache


class VersionHealthAnswer(AnswerModel):
    """The Sandbox API's."""

    status: Status
    version: str


class ServiceHealthAnswer(AnswerModel):
    """Of those that say who they are."""

    status: Status
    service: str


class ShortHealthAnswer(AnswerModel):
    """execbox's."""

    status: Literal["ok", "unhealthy"]


class ShortReadyAnswer(AnswerModel):
    """The Sandbox API's."""

    status: Literal["ready", "not_ready"]
    sandboxes_active: int


def testbase_shape(_healthy: bool, told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in TESTBASE if name in told}


def version_shape(_healthy: bool, told: dict[str, Any]) -> dict[str, Any]:
    return {"status": told["status"], "version": told["version"]}


def short_shape(healthy: bool, _told: dict[str, Any]) -> dict[str, Any]:
    return {"status": "ok" if healthy else "unhealthy"}


def named_shape(service: str) -> Shape:
    return lambda _healthy, told: {"status": told["status"], "service": service}


def health_operation(health: Health, shape: Shape, model: type[AnswerModel]) -> Operation:
    """GET /health in that shape; 503 where a part of the server does not work."""

    async def look(_request: Request) -> Response:
        healthy, told = await health.told()
        return json_response(shape(healthy, told), 200 if healthy else 503)

    return Operation(
        "GET", "/health", look, "health", "Whether the server and its parts work",
        answers=(Answer(200, "they do", model), Answer(503, "one does not", model)), public=True, tag=TAG,
    )  # fmt: skip


def ready_operation(health: Health) -> Operation:
    """GET /health/ready of the Sandbox API."""

    async def look(_request: Request) -> Response:
        ready = await health.healthy()
        told = {"status": "ready" if ready else "not_ready", "sandboxes_active": health.sandboxes_active}
        return json_response(told, 200 if ready else 503)

    return Operation(
        "GET", "/health/ready", look, "ready", "Whether it can take work",
        answers=(Answer(200, "it can", ShortReadyAnswer), Answer(503, "it cannot", ShortReadyAnswer)),
        public=True, tag=TAG,
    )  # fmt: skip


def testbase_metrics_operation(metrics: Metrics, history: TaskHistory) -> Operation:
    """GET /metrics as Testbase has it; Prometheus, which asks for text, gets its own."""

    async def render(request: Request) -> Response:
        if "text/plain" in request.headers.get("accept", ""):
            return rendered(metrics, request)
        return json_response(figures(await history.of_all()))

    return Operation(
        "GET", "/metrics", render, "metrics", "How everybody's tasks of the last day went",
        answers=(
            Answer(200, "the figures", TaskMetricsAnswer),
            Answer(200, "with `Accept: text/plain`: Prometheus metrics", None, "text/plain"),
        ),
        errors=(503,), public=True, tag=TAG,
    )  # fmt: skip
