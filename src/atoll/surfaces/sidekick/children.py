"""Child sandboxes, as the sidekick API serves them: flat answers, and `subdomain` where others say id."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.ids import subdomain
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox
from atoll.services.daemon.children import Children
from atoll.services.sandbox_tokens import SandboxTokens
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk.gateway import Furnish
from atoll.surfaces.computesdk.gateway_bodies import CreateSandboxBody, GatewayOverlay, GatewayServer
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Once, Operation, Parameter
from atoll.surfaces.sidekick.declared import COOKIE, DAEMON, TAG
from atoll.surfaces.sidekick.errors import SidekickError
from atoll.telemetry.trace import trace_of

CHILDREN = DAEMON + "/sandboxes"
CHILD = CHILDREN + "/{subdomain}"
DELETE_FILES = Parameter("delete_files", "delete its workspace too; default: no", bool)


class ChildAnswer(AnswerModel):
    """A sandbox. `token` opens a new child's own daemon, and is told this once."""

    subdomain: str
    directory: str
    is_main: bool
    created_at: datetime
    url: str
    token: str | None = None
    overlays: list[GatewayOverlay] | None = None
    servers: list[GatewayServer] | None = None


class ChildrenAnswer(AnswerModel):
    sandboxes: list[ChildAnswer]


class ChildHandlers:
    """One method for each operation."""

    def __init__(self, children: Children, tokens: SandboxTokens, furnish: Furnish, settings: Settings) -> None:
        self._children = children
        self._tokens = tokens
        self._furnish = furnish
        self._addresses = Addresses(settings)
        self._body_bytes = settings.server.body_bytes
        self._defaults = settings.limits.defaults.resources()
        self._session_timeout_s = settings.limits.session_timeout_s

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, CreateSandboxBody, self._body_bytes, optional=True)
        asked = body.asked(self._defaults, self._session_timeout_s, body.name)
        if body.timeout is None:  # as long as its parent
            asked = replace(asked, spec=replace(asked.spec, resources=replace(asked.spec.resources, timeout_s=None)))
        parent_id, request_id = request.path_params["id"], trace_of(request.scope).request_id

        def url_of(sandbox_id: str) -> str:
            return self._addresses.daemon(request, sandbox_id)

        made = await self._children.create(principal, parent_id, asked, url_of, request_id=request_id)
        try:
            maker = await self._tokens.maker(principal)
            told = self._child(request, made, parent_id)
            told |= await self._furnish(maker, made, body, self._addresses.base(request))
            within = await self._tokens.of(principal)
            told["token"] = (await self._tokens.access(maker, made.id, within=within)).text
        except BaseException:
            await self._children.abandon(made, request_id=request_id)
            raise
        return json_response(told, 201, {"cache-control": "no-store"})

    async def list(self, request: Request, principal: Principal) -> Response:
        parent_id = request.path_params["id"]
        found = await self._children.list(principal, parent_id)
        return json_response({"sandboxes": [self._child(request, one, parent_id) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        parent_id = request.path_params["id"]
        found = await self._children.get(principal, parent_id, request.path_params["subdomain"])
        return json_response(self._child(request, found, parent_id))

    async def destroy(self, request: Request, principal: Principal) -> Response:
        await self._children.destroy(
            principal,
            request.path_params["id"],
            request.path_params["subdomain"],
            delete_files=DELETE_FILES.flag(request),
            request_id=trace_of(request.scope).request_id,
        )
        return Response(status_code=204)

    def _child(self, request: Request, one: Sandbox, parent_id: str) -> dict[str, Any]:
        return {
            "subdomain": subdomain(one.id),
            "directory": one.spec.work_dir,
            "is_main": one.id == parent_id,
            "created_at": one.created_at,
            "url": self._addresses.daemon(request, one.id),
        }


def operations(of: ChildHandlers) -> list[Operation]:
    """What is served of child sandboxes."""
    made = (400, 402, 403, 404, 409, 413, 429, 501, 503, 504)
    return [
        Operation(
            "POST", CHILDREN, of.create, "daemonCreateChild", "Make a child sandbox",
            answers=(Answer(201, "the child, running", ChildAnswer),), body=CreateSandboxBody, body_required=False,
            errors=made, tag=TAG, error=SidekickError, cookie=COOKIE, once=Once.MADE,
        ),
        Operation(
            "GET", CHILDREN, of.list, "daemonListChildren", "The sandbox and its children, oldest first",
            answers=(Answer(200, "each of them", ChildrenAnswer),), errors=(400, 403, 404, 503),
            tag=TAG, error=SidekickError, cookie=COOKIE,
        ),
        Operation(
            "GET", CHILD, of.get, "daemonGetChild", "Look at a child sandbox",
            answers=(Answer(200, "the child", ChildAnswer),), errors=(400, 403, 404, 503),
            tag=TAG, error=SidekickError, cookie=COOKIE,
        ),
        Operation(
            "DELETE", CHILD, of.destroy, "daemonDeleteChild", "End a child sandbox",
            answers=(Answer(204, "it is gone"),), parameters=(DELETE_FILES,), errors=(400, 403, 404, 409, 503, 504),
            tag=TAG, error=SidekickError, cookie=COOKIE,
        ),
    ]  # fmt: skip
