"""The handlers of sessions: make, look at, end, keep alive, freeze; and what lies around them: ports and templates."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import Conflict
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, Usage
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.execbox import answers
from atoll.surfaces.execbox.requests import CreateBody, KeepaliveBody, NetworkBody
from atoll.surfaces.operation import Parameter
from atoll.telemetry.trace import trace_of

STATUS = Parameter("status", "only sessions of this status", choices=answers.STATUSES)
LIMIT = Parameter("limit", "at most so many, the newest", int, minimum=1, maximum=100_000)
REMOVE = Parameter("remove", "also take it out of lists; an ended session may be removed too", bool)
PORT = Parameter("port", "the port inside", int, required=True, minimum=1, maximum=65_535)
GRACE = Parameter("graceMs", "time between TERM and KILL", int, minimum=0, maximum=300_000)


class Sessions:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._body_bytes = settings.server.body_bytes
        self._defaults = settings.limits.defaults.resources()
        self._session_timeout_s = settings.limits.session_timeout_s
        self._list_items = settings.limits.list_items

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, CreateBody, self._body_bytes)
        spec = body.spec(self._defaults, self._session_timeout_s)
        request_id = trace_of(request.scope).request_id
        work = self._sandboxes.create(principal, spec, name=body.name, group=body.group, request_id=request_id)
        # A client that goes away meanwhile never learns the id: the service then kills what it made.
        sandbox = await unless_disconnected(request.receive, work)
        trace_of(request.scope).sandbox_id = sandbox.id
        return json_response(self._session(sandbox), 201)

    async def get(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        sandbox = await self._sandboxes.get(principal, sandbox_id)
        used = await self._sandboxes.usage(principal, sandbox_id)
        return json_response(self._session(sandbox, used))

    async def list(self, request: Request, principal: Principal) -> Response:
        status = STATUS.text(request)
        limit = min(LIMIT.number(request) or self._list_items, self._list_items)
        found = await self._sandboxes.list(principal, states=answers.states(status) if status else None, limit=limit)
        used = await self._sandboxes.usages(principal, found)
        return json_response({"sessions": [self._session(one, used[one.id]) for one in found]})

    async def stop(self, request: Request, principal: Principal) -> Response:
        grace_ms = GRACE.number(request)
        sandbox = await self._sandboxes.stop(
            principal,
            request.path_params["id"],
            grace_s=None if grace_ms is None else grace_ms / 1000,
            request_id=trace_of(request.scope).request_id,
        )
        return json_response({"status": answers.status(sandbox.state)})

    async def kill(self, request: Request, principal: Principal) -> Response:
        sandbox_id = request.path_params["id"]
        remove = REMOVE.flag(request)
        request_id = trace_of(request.scope).request_id
        if not remove:
            sandbox = await self._sandboxes.kill(principal, sandbox_id, request_id=request_id)
            return json_response({"status": answers.status(sandbox.state)})
        sandbox = await self._sandboxes.get(principal, sandbox_id)
        if not sandbox.ended:
            try:
                sandbox = await self._sandboxes.kill(principal, sandbox_id, request_id=request_id)
            except Conflict:  # it ended by itself in this moment: that is as good
                sandbox = await self._sandboxes.get(principal, sandbox_id)
        await self._sandboxes.remove(principal, sandbox_id, request_id=request_id)
        return json_response({"status": answers.status(sandbox.state), "removed": True})

    async def keepalive(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, KeepaliveBody, self._body_bytes, optional=True)
        sandbox = await self._sandboxes.keepalive(
            principal,
            request.path_params["id"],
            timeout_s=body.timeout_s,
            request_id=trace_of(request.scope).request_id,
        )
        return json_response(self._session(sandbox))

    async def network(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, NetworkBody, self._body_bytes)
        sandbox = await self._sandboxes.set_allowed(principal, request.path_params["id"], body.allow)
        return json_response(self._session(sandbox))

    async def pause(self, request: Request, principal: Principal) -> Response:
        request_id = trace_of(request.scope).request_id
        sandbox = await self._sandboxes.pause(principal, request.path_params["id"], request_id=request_id)
        return json_response({"id": sandbox.id, "paused": True})

    async def suspend(self, request: Request, principal: Principal) -> Response:
        request_id = trace_of(request.scope).request_id
        grace_ms = GRACE.number(request)
        grace_s = None if grace_ms is None else grace_ms / 1000
        sandbox = await self._sandboxes.suspend(
            principal, request.path_params["id"], grace_s=grace_s, request_id=request_id
        )
        return json_response({"id": sandbox.id, "suspended": True})

    async def resume(self, request: Request, principal: Principal) -> Response:
        request_id = trace_of(request.scope).request_id
        sandbox = await self._sandboxes.resume(principal, request.path_params["id"], request_id=request_id)
        return json_response({"id": sandbox.id, "paused": False})

    async def url(self, request: Request, principal: Principal) -> Response:
        port = PORT.number(request) or 0
        found = await self._sandboxes.ports.url(principal, request.path_params["id"], port)
        return json_response(answers.url(found))

    async def templates(self, _request: Request, principal: Principal) -> Response:
        found = self._sandboxes.templates.list(principal)
        return json_response({"templates": [answers.template(one) for one in found]})

    def _session(self, sandbox: Sandbox, used: Usage | None = None) -> answers.Json:
        ports = self._sandboxes.ports
        return answers.session(
            sandbox, ports.host, ports.urls(sandbox), used, paused=self._sandboxes.is_paused(sandbox)
        )
