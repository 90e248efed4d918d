"""Every operation for operators and machines: public, and all that is public but logins; app.py makes the routes."""

from __future__ import annotations

from urllib.parse import urlsplit

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

    served = [
        front_operation("Atoll", health.version, docs=pages is not None),
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
    served += [metrics_operation(metrics, history)] if metrics else []
    return served + (page_operations(pages) if pages else [])


def front_operation(name: str, version: str, *, docs: bool) -> Operation:
    """GET /: who answers here."""

    async def front(_request: Request) -> Response:
        shown = {"docs": "/docs", "openapi": "/openapi.json"} if docs else {}
        return json_response({"name": name, "version": version, "health": "/health"} | shown)

    return Operation(
        "GET", "/", front, "front", "What this is, and where it says more",
        answers=(Answer(200, "its name and version", FrontAnswer),), public=True, tag=TAG,
    )  # fmt: skip


def metrics_operation(metrics: Metrics, history: TaskHistory) -> Operation:
    """GET /metrics: Prometheus's, and Testbase's for who names JSON."""

    async def render(request: Request) -> Response:
        if wants_json(request):
            return json_response(figures(await history.of_all()))
        return rendered(metrics, request)

    return Operation(
        "GET", "/metrics", render, "metrics", "Prometheus metrics",
        answers=(
            Answer(200, "text format", None, "text/plain"),
            Answer(200, "with `Accept: application/json`: how tasks went", TaskMetricsAnswer),
        ),
        errors=(503,), public=True, tag=TAG,
    )  # fmt: skip


def rendered(metrics: Metrics, request: Request) -> Response:
    """Monitors bring no key; whose sandbox runs what is told to this machine alone, to nobody through a proxy, and to
    no page of a browser that runs here, by whatever name that reaches this machine."""
    scope = request.scope
    here = not is_proxied(scope) and is_loopback(trace_of(scope).peer or "") and "origin" not in request.headers
    here = here and is_loopback(_host_of(request))
    return Response(metrics.render(tenants=here), headers={"content-type": CONTENT_TYPE})


def _host_of(request: Request) -> str:
    """By what name the client knows this machine, without the port; "" where it does not say."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def page_operations(pages: Pages) -> list[Operation]:
    """The document and what shows it."""
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
