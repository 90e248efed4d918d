"""Mounting: the operations of every surface as routes, and what stands before them: page origins, previews, traces.

The composition root mounts one application at the server's port; whatever has a port of its own stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

from atoll.served import served_by
from atoll.settings.listen import Address
from atoll.surfaces.cors import Cors
from atoll.surfaces.cut_short import CutShort
from atoll.surfaces.listeners import TESTBASE, Listener, is_foreign, is_testbase
from atoll.surfaces.operation import Operation
from atoll.surfaces.previews.door import PreviewDoor
from atoll.surfaces.routing import Dialect, routes, unserved
from atoll.surfaces.terminal_platform.previews import PreviewRoute, carried_operations
from atoll.telemetry.trace import Tracing

if TYPE_CHECKING:
    from atoll.app import Application


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is served at the server's port."""

    operations: list[Operation]
    routes: list[BaseRoute]
    asgi: ASGIApp


@dataclass(frozen=True, slots=True)
class Beside:
    """An application of its own, with where it is served."""

    name: str
    address: Address
    app: ASGIApp


def mount(app: Application) -> Mounted:
    """Everything that the application serves, at one port."""
    served = [(dialect, app.once.around(operations)) for dialect, operations in served_by(app)]
    mounted = [route for dialect, operations in served for route in routes(operations, app.door, dialect)]
    router = Router(
        mounted, redirect_slashes=False, default=unserved(app.dialect.not_found), lifespan=lambda _: app.running()
    )
    previews = _with_previews(app, _readable(app, router, is_testbase))
    carried = PreviewRoute(app.door, previews)
    router.routes.append(carried)  # for what is below its path and names no port
    return Mounted(
        operations=[one for _, operations in served for one in operations] + carried_operations(),
        routes=[*mounted, carried],
        asgi=_quick(app, previews, app.dialect),
    )


def mount_beside(app: Application) -> list[Beside]:
    """What is served at ports of its own."""
    found = [Beside(one.service.name, address, _alone(app, one)) for address, one in app.listeners]
    own = app.settings.objects
    if own.enabled:
        asgi = _traced(app, app.objects, app.objects.dialect)
        found.append(Beside("objects", Address("objects.port", own.host, own.port), asgi))
    return found


def _alone(app: Application, listener: Listener) -> ASGIApp:
    """A listener with what stands before the routes of the one port too."""
    readable = _readable(app, listener, is_testbase if listener.service is TESTBASE else lambda _: False)
    if not listener.service.by_host:
        return _traced(app, readable, listener.dialect)
    return _quick(app, _with_previews(app, readable), listener.dialect)


def _readable(app: Application, asgi: ASGIApp, testbase: Callable[[str], bool]) -> ASGIApp:
    """With what pages of other origins may read of it."""
    return Cors(asgi, app.settings.api.cors_origins, testbase, is_foreign)


def _with_previews(app: Application, asgi: ASGIApp) -> PreviewDoor:
    return app.showing.door(asgi, app.door, app.identity.authenticate, app.settings.previews.path_pages)


def _traced(app: Application, asgi: ASGIApp, dialect: Dialect) -> ASGIApp:
    """With a span, metrics and an answer for every request, in that dialect also when the server ends."""
    return Tracing(CutShort(asgi, dialect), app.metrics, app.traces)


def _quick(app: Application, previews: PreviewDoor, dialect: Dialect) -> ASGIApp:
    return app.showing.quick(_traced(app, previews, dialect), previews, app.door, app.metrics)
