"""What a sandbox's daemon says of itself: whether it is there, what it is, whether all is ready; and two pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from html import escape
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import atoll
from atoll.domain.ids import subdomain
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.services.daemon.children import Children
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.bodies import json_response
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.sidekick.declared import COOKIE, DAEMON, TAG
from atoll.surfaces.sidekick.errors import SidekickError, done

Json = dict[str, Any]
HTML = "text/html; charset=utf-8"
# Nothing of a page is loaded from anywhere, and no other page frames it.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
# Its servers and overlays, as `/ready` tells of them.
Furniture = Callable[[Principal, str, str], Awaitable[tuple[list[Json], list[Json]]]]


class HealthAnswer(AnswerModel):
    """What answers is the door of the sandbox: it says nothing about whether there is such a one."""

    status: Literal["ok"]
    timestamp: datetime


class Info(AnswerModel):
    auth_enabled: Literal[True]
    main_subdomain: str
    sandbox_count: int
    sandbox_url: str
    version: str
    status: Literal["running", "stopped", "error"]
    timeout: int | None
    """Milliseconds from its start; null: none."""


class InfoAnswer(AnswerModel):
    message: str
    data: Info


class ReadyAnswer(AnswerModel):
    """Whether every server that is to run does, and every overlay is there."""

    ready: bool
    healthy: bool
    servers: list[dict[str, Any]]
    overlays: list[dict[str, Any]]


class DaemonHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, children: Children, furniture: Furniture, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._children = children
        self._furniture = furniture
        self._addresses = Addresses(settings)

    async def health(self, _request: Request) -> Response:
        return json_response({"status": "ok", "timestamp": datetime.now(UTC)})

    async def info(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        sandbox, *children = await self._children.list(principal, sandbox_id)
        timeout_s = sandbox.spec.resources.timeout_s
        data = {
            "auth_enabled": True,
            "main_subdomain": subdomain(sandbox.id),
            "sandbox_count": 1 + len(children),
            "sandbox_url": self._addresses.daemon(request, sandbox.id),
            "version": atoll.__version__,
            "status": _status(sandbox),
            "timeout": None if timeout_s is None else round(timeout_s * 1000),
        }
        return done("Sandbox information", data)

    async def ready(self, request: Request, principal: Principal) -> Response:
        sandbox = await self._sandboxes.get(principal, request.path_params["id"])
        base = self._addresses.base(request)
        servers, overlays = await self._furniture(principal, sandbox.id, base)
        copied = all(one["copy_status"] == "complete" for one in overlays)
        run = all(one["status"] in ("running", "ready", "stopped") for one in servers)
        healthy = all(one.get("healthy") is not False and one["status"] != "failed" for one in servers)
        there = not sandbox.ended or sandbox.may_wake
        return json_response(
            {"ready": there and copied and run, "healthy": there and healthy, "servers": servers, "overlays": overlays}
        )

    async def landing(self, request: Request, principal: Principal) -> Response:
        sandbox = await self._sandboxes.get(principal, request.path_params["id"])
        return self._page(request, sandbox, "This is the daemon of a sandbox.")

    async def play(self, request: Request, principal: Principal) -> Response:
        sandbox = await self._sandboxes.get(principal, request.path_params["id"])
        return self._page(request, sandbox, "You are signed in to this sandbox.")

    def _page(self, request: Request, sandbox: Sandbox, first: str) -> Response:
        base = self._addresses.daemon(request, sandbox.id)
        rows = (
            ("Sandbox", sandbox.id),
            ("Name", sandbox.name or "none"),
            ("State", sandbox.state.value),
            ("API", base),
            ("Events", base.replace("http", "ws", 1) + "/ws"),
            ("Atoll", atoll.__version__),
        )
        table = "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in rows)
        text = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(sandbox.name or sandbox.id)}</title>"
            "<style>body{font:16px system-ui;margin:3em;max-width:60em}th{text-align:left;padding-right:2em}</style>"
            f"<h1>{escape(sandbox.name or sandbox.id)}</h1><p>{first} Commands, files and terminals are its API's.</p>"
            f"<table>{table}</table></html>"
        )
        return HTMLResponse(text, headers=PAGE_HEADERS)


def _status(sandbox: Sandbox) -> str:
    if sandbox.state.value == "failed":
        return "error"
    return "stopped" if sandbox.ended else "running"


def operations(of: DaemonHandlers) -> list[Operation]:
    """What is served of the daemon itself."""
    page = (Answer(200, "a page", None, HTML),)
    lost = (400, 403, 404, 503)
    return [
        Operation(
            "GET", DAEMON + "/health", of.health, "daemonHealth", "Whether the door of the sandbox answers",
            answers=(Answer(200, "it does", HealthAnswer),), public=True, tag=TAG, error=SidekickError,
        ),
        Operation(
            "GET", DAEMON + "/info", of.info, "daemonInfo", "What the sandbox is",
            answers=(Answer(200, "its state, address and children", InfoAnswer),), errors=lost, tag=TAG,
            error=SidekickError, cookie=COOKIE,
        ),
        Operation(
            "GET", DAEMON + "/ready", of.ready, "daemonReady", "Whether its servers run and its overlays are there",
            answers=(Answer(200, "each of them", ReadyAnswer),), errors=(409, *lost), tag=TAG,
            error=SidekickError, cookie=COOKIE,
        ),
        Operation(
            "GET", DAEMON + "/", of.landing, "daemonLanding", "A page that says what this is", answers=page,
            errors=lost, tag=TAG, error=SidekickError, cookie=COOKIE, page=True,
        ),
        Operation(
            "GET", DAEMON + "/play/", of.play, "daemonPlay", "Where a magic link leads", answers=page,
            errors=lost, tag=TAG, error=SidekickError, cookie=COOKIE, page=True,
        ),
    ]  # fmt: skip
