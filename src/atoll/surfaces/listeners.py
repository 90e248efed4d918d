"""Listeners: each service of the systems before Atoll at a port of its own, as an application that serves only it.

app.py makes one for each that has an address in the settings. Routes are those of the one port, behind the same door;
what collides there, and health, metrics and documents, have the service's own form here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from atoll.domain.errors import NotFound
from atoll.services.tasks.history import TaskHistory
from atoll.surfaces.computesdk.errors import ComputeDialect
from atoll.surfaces.execbox.answers import Error
from atoll.surfaces.execbox.errors import ExecboxDialect
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.openapi import document
from atoll.surfaces.operation import Operation
from atoll.surfaces.ops import alone
from atoll.surfaces.ops.health import Health
from atoll.surfaces.ops.pages import Pages
from atoll.surfaces.ops.routes import front_operation, metrics_operation, page_operations
from atoll.surfaces.routing import Dialect, PathRoute, unserved
from atoll.surfaces.terminal_platform.errors import TerminalDialect
from atoll.surfaces.testbase.errors import TestbaseDialect
from atoll.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Service:
    """One of them: what it is called, what it serves, how it speaks of errors and how it says that it is well."""

    name: str  # as in the settings' `listen`
    title: str
    paths: tuple[str, ...]  # each with all that is below it
    dialect: Callable[[], Dialect]
    shape: alone.Shape
    health: type[AnswerModel]
    but: tuple[str, ...] = ()  # below those paths, and not this service's
    by_host: bool = False  # ports of sandboxes are reached by host name here too

    def serves(self, path: str) -> bool:
        """Whether a path, or a route's template, is its own."""
        return _below(path, self.paths) and not _below(path, self.but)


_PREVIEW_SLASHES = 2  # /preview/{sandbox}/{port} has more, /preview/register has these
_COMPUTE = ("/auth", "/api", "/.well-known/jwks.json", "/compute")
TESTBASE = Service(
    "testbase",
    "Testbase Cloud",
    ("/execute", "/tasks", "/sessions", "/cache", "/metrics/history", "/workspace", "/billing", "/admin"),
    TestbaseDialect,
    alone.testbase_shape,
    alone.TestbaseHealthAnswer,
)
SERVICES = (
    Service(
        "sandbox", "Sandbox API", ("/sandboxes",), TerminalDialect, alone.version_shape, alone.VersionHealthAnswer
    ),
    Service(
        "preview", "Preview Router", ("/preview",), TerminalDialect,
        alone.named_shape("preview-router"), alone.ServiceHealthAnswer, by_host=True,
    ),
    Service(
        "snapshot", "Snapshot API", ("/snapshot",), TerminalDialect,
        alone.named_shape("snapshot-api"), alone.ServiceHealthAnswer,
    ),
    Service(
        "agent", "Agent Workspace API", ("/workspaces", "/marketplace"), TerminalDialect,
        alone.named_shape("agent-workspace-api"), alone.ServiceHealthAnswer,
    ),
    TESTBASE,
    Service(
        "execbox", "execbox", ("/v1/sessions", "/v1/account", "/v1/waitlist", "/v1/quota-requests", "/v1/templates"),
        ExecboxDialect, alone.short_shape, alone.ShortHealthAnswer,
    ),
    Service(
        "compute", "ComputeSDK API", _COMPUTE, ComputeDialect,
        alone.named_shape("api"), alone.ServiceHealthAnswer, but=("/compute",),
    ),
    Service(
        "gateway", "ComputeSDK Gateway", (*_COMPUTE, "/v1/sandboxes", "/v1/snapshots", "/sb", "/preview"),
        ComputeDialect, alone.named_shape("gateway"), alone.ServiceHealthAnswer, by_host=True,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ops:
    """What the ops routes are made of."""

    health: Health
    metrics: Metrics | None  # None: they are not served
    history: TaskHistory
    docs: bool
    version: str


class Listener:
    """The ASGI application of one service, and the operations that it serves."""

    def __init__(
        self,
        service: Service,
        served: Iterable[PathRoute],
        ops: Ops,
        made: Callable[[Iterable[Operation]], Sequence[PathRoute]],
        own: Sequence[PathRoute] = (),
    ) -> None:
        """`served` are the routes of the one port, `own` those that this service has besides, where others have the
        path on the one port; `made` makes routes of the ops operations."""
        self.service = service
        chosen = [one for one in served if service.serves(one.path)]
        self._dialect = service.dialect()
        self.routes: list[PathRoute] = [*made(self._ops(ops)), *own, *chosen]
        self._version = ops.version
        self._router = Router(self.routes, redirect_slashes=False, default=unserved(self._no_route))

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    def operations(self) -> list[Operation]:
        return [one for route in self.routes for one in route.operations]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document of what this service serves."""
        title = f"Atoll: {self.service.title}"
        return document(self.operations, Error, version=self._version, title=title)

    def _ops(self, ops: Ops) -> list[Operation]:
        service, health = self.service, ops.health
        found = [
            front_operation(f"Atoll: {service.title}", ops.version, docs=ops.docs),
            alone.health_operation(health, service.shape, service.health),
        ]
        if service.name == "sandbox":
            found.append(alone.ready_operation(health))
        if ops.metrics is not None:
            metrics = alone.testbase_metrics_operation if service is TESTBASE else metrics_operation
            found.append(metrics(ops.metrics, ops.history))
        return found + (page_operations(Pages(self.openapi)) if ops.docs else [])

    def _no_route(self) -> Response:
        return self._dialect.error(NotFound("no such route"))


def is_testbase(path: str) -> bool:
    """Whether a path of the one port is Testbase's there; its health is told in the merged object."""
    return path == "/health" or TESTBASE.serves(path)


def is_foreign(path: str) -> bool:
    """Whether programs in sandboxes answer there, who say themselves which pages may read them."""
    return (
        path.startswith("/preview/") and path.count("/") > _PREVIEW_SLASHES and not _below(path, ("/preview/register",))
    )


def _below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(top + "/") for top in tops)
