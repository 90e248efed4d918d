"""Every operation for operators and machines: public, and the only public ones there are; app.py makes the routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.services.tasks.history import TaskHistory
from atoll.surfaces.bodies import json_response
from atoll.surfaces.door import is_loopback, is_proxied
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import JSON, Answer, Operation
from atoll.surfaces.ops.health import Health, HealthAnswer, ReadyAnswer
from atoll.surfaces.ops.pages import Pages
from atoll.surfaces.ops.task_metrics import TaskMetricsAnswer, figures, wants_json
from atoll.telemetry.metrics import CONTENT_TYPE, Metrics
from atoll.telemetry.trace import trace_of

TAG = "operations"

ANY_OBJECT = {"type": "object"}


class FrontAnswer(AnswerModel):
    name: str
    version: str
    health: str
    docs: str | None = None
    openapi: str | None = None


def operations(health: Health, metrics: Metrics | None, pages: Pages | None, history: TaskHistory) -> list[Operation]:
    """`metrics` None: they are not served; `pages` None: the document and its pages are not."""

    async def front(_request: Request) -> Response:
        shown = {"docs": "/docs", "openapi": "/openapi.json"} if pages else {}
        return json_response({"name": "Atoll", "version": health.version, "health": "/health"} | shown)

    served = [
        Operation(
            "GET", "/", front, "front", "What this is, and where it says more",
            answers=(Answer(200, "its name and version", FrontAnswer),), public=True, tag=TAG,
        ),
        Operation(
            "GET", "/health", health.health, "health", "Whether the server and its parts work",
            answers=(
                Answer(200, "they do", HealthAnswer),
                Answer(503, "one does not", HealthAnswer),
            ), public=True, tag=TAG,
        ),
        Operation(
            "GET", "/health/ready", health.ready, "ready", "Whether it can take work",
            answers=(Answer(200, "it can", ReadyAnswer), Answer(503, "it cannot", ReadyAnswer)),
            public=True, tag=TAG,
        ),
    ]  # fmt: skip
    return served + (_metrics(metrics, history) if metrics else []) + (_pages(pages) if pages else [])


def _metrics(metrics: Metrics, history: TaskHistory) -> list[Operation]:
    async def render(request: Request) -> Response:
        if wants_json(request):
            return json_response(figures(await history.of_all()))
        # monitors bring no key; whose sandbox runs what is told to this machine alone, and to nobody through a proxy
        here = not is_proxied(request.scope) and is_loopback(trace_of(request.scope).peer or "")
        return Response(metrics.render(tenants=here), headers={"content-type": CONTENT_TYPE})

    return [
        Operation(
            "GET", "/metrics", render, "metrics", "Prometheus metrics",
            answers=(
                Answer(200, "text format", None, "text/plain"),
                Answer(200, "with `Accept: application/json`: how tasks went", TaskMetricsAnswer),
            ),
            errors=(503,), public=True, tag=TAG,
        ),
    ]  # fmt: skip


def _pages(pages: Pages) -> list[Operation]:
    html = Answer(200, "the page", None, "text/html")
    return [
        Operation(
            "GET", "/openapi.json", pages.json, "openapiJson", "This document",
            answers=(Answer(200, "OpenAPI 3.1", ANY_OBJECT, JSON),), public=True, tag=TAG,
        ),
        Operation(
            "GET", "/openapi.yaml", pages.yaml, "openapiYaml", "This document",
            answers=(Answer(200, "OpenAPI 3.1", ANY_OBJECT, "application/yaml"),), public=True, tag=TAG,
        ),
        Operation(
            "GET", "/docs", pages.swagger, "docs", "This document, to try out",
            answers=(html,), public=True, tag=TAG,
        ),
        Operation(
            "GET", "/redoc", pages.redoc, "redoc", "This document, to read",
            answers=(html,), public=True, tag=TAG,
        ),
        Operation(
            "GET", "/docs/assets/{file}", pages.asset, "docsAsset", "A part of those pages",
            answers=(
                Answer(200, "it", None, "text/javascript"),
                Answer(200, "it", None, "text/css"),
                Answer(200, "it", None, "image/png"),
            ),
            errors=(404,), public=True, tag=TAG,
        ),
    ]  # fmt: skip
