"""Computes: sandboxes under ComputeSDK's on-premise name, with a file system, a group and an image of one's choice."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.event import EventQuery
from atoll.domain.ids import compute_id
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.services.audit.events import Events
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.addresses import Addresses, sandbox_in
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.computesdk import compute_bodies as bodies
from atoll.surfaces.computesdk.errors import ComputeError
from atoll.surfaces.computesdk.events import AFTER, BEFORE, COUNT, LIMIT, ORDER, EventsAnswer, event_answer
from atoll.surfaces.operation import Answer, Once, Operation, Parameter
from atoll.telemetry.trace import trace_of

COMPUTES = "/api/computes"
COMPUTE = COMPUTES + "/{id}"
# What each field of a compute is called where it is looked at.
FIELDS = {"image": "image_name", "workspaces": "filesystem_id", "workspaces.path": "filesystem_id"}
GROUP = Parameter("group_id", "only those of one group: its id", max_chars=128)
STATUS = Parameter("status", "only those", choices=tuple(dict.fromkeys(bodies.STATUSES.values())))


class ComputeHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, events: Events, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._events = events
        self._addresses = Addresses(settings)
        self._body_bytes = settings.server.body_bytes
        self._list_items = settings.limits.list_items
        self._defaults = settings.limits.defaults.resources()
        self._session_timeout_s = settings.limits.session_timeout_s

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, bodies.ComputeBody, self._body_bytes)
        try:
            made = await self._sandboxes.create(
                principal,
                body.spec(self._defaults, self._session_timeout_s),
                name=body.name,
                group=body.group_id,
                request_id=trace_of(request.scope).request_id,
            )
        except InvalidInput as error:
            raise InvalidInput(error.message, field=FIELDS.get(error.field or "", error.field)) from error
        return json_response(self._told(request, made), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        group, status = GROUP.text(request), STATUS.text(request)
        states = None if status is None else {state for state in SandboxState if bodies.STATUSES[state] == status}
        found = await self._sandboxes.list(principal, owner=group, states=states, limit=self._list_items)
        return json_response({"computes": [self._told(request, one) for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(self._told(request, await self._sandboxes.get(principal, sandbox_in(request))))

    async def stop(self, request: Request, principal: Principal) -> Response:
        request_id = trace_of(request.scope).request_id
        stopped = await self._sandboxes.stop(principal, sandbox_in(request), request_id=request_id)
        return json_response(self._told(request, stopped))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._sandboxes.end(principal, sandbox_in(request), request_id=trace_of(request.scope).request_id)
        return json_response({"deleted": True})

    async def events(self, request: Request, principal: Principal) -> Response:
        sandbox = await self._sandboxes.get(principal, sandbox_in(request))
        query = EventQuery(
            targets=(sandbox.id,),
            after_id=AFTER.number(request),
            before_id=BEFORE.number(request),
            newest_first=ORDER.text(request) == "newest",
            limit=COUNT.number(request) or LIMIT,
        )
        found = await self._events.find(principal, query, sandbox.owner)
        return json_response({"events": [event_answer(event) for event in found]})

    def _told(self, request: Request, one: Sandbox) -> dict[str, object]:
        base = self._addresses.base(request)
        terminal_url = f"{base.replace('http', 'ws', 1)}/compute/{compute_id(one.id)}/terminal"
        return bodies.told(one, self._addresses.daemon(request, one.id), terminal_url)


def operations(sandboxes: Sandboxes, events: Events, settings: Settings) -> list[Operation]:
    """What is served of computes."""
    of = ComputeHandlers(sandboxes, events, settings)
    tag, error, lost = "computes", ComputeError, (403, 404, 503, 504)
    compute = Answer(200, "the compute", bodies.ComputeAnswer)
    return [
        Operation(
            "POST", COMPUTES, of.create, "createCompute", "Make a compute, with a file system where one is named",
            answers=(Answer(201, "the compute, running", bodies.ComputeAnswer),), body=bodies.ComputeBody,
            errors=(400, 402, 409, 413, 429, 501, *lost), tag=tag, error=error, once=Once.MADE,
        ),
        Operation(
            "GET", COMPUTES, of.list, "listComputes", "Your computes and those of your groups, newest first",
            answers=(Answer(200, "the computes", bodies.ComputesAnswer),), parameters=(GROUP, STATUS),
            errors=(400, 403, 503), tag=tag, error=error,
        ),
        Operation(
            "GET", COMPUTE, of.get, "getCompute", "Look at a compute", answers=(compute,), errors=lost,
            tag=tag, error=error,
        ),
        Operation(
            "POST", COMPUTE + "/stop", of.stop, "stopCompute", "End a compute's processes, then itself",
            answers=(compute,), errors=(409, *lost), tag=tag, error=error,
        ),
        Operation(
            "DELETE", COMPUTE, of.delete, "deleteCompute", "End a compute at once and forget it",
            answers=(Answer(200, "it is gone", bodies.ComputeDeletedAnswer),), errors=(409, *lost),
            tag=tag, error=error,
        ),
        Operation(
            "GET", COMPUTE + "/events", of.events, "listComputeEvents", "What happened to a compute",
            answers=(Answer(200, "the events", EventsAnswer),), parameters=(AFTER, BEFORE, ORDER, COUNT),
            errors=(400, *lost), tag=tag, error=error,
        ),
    ]  # fmt: skip
