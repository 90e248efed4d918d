"""Make a sandbox, see whether it runs, end it: the protocol's life cycle; and buckets, which it cannot mount here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import Conflict, Unsupported
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import NetworkMode, Port, SandboxSpec, SandboxState
from atoll.domain.workspace import MOUNT_POINT, WorkspaceMount
from atoll.services.lasting_sandboxes import LastingSandboxes
from atoll.services.sandboxes import Sandboxes
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.models import AnswerModel, BodyModel
from atoll.telemetry.trace import trace_of

RUNS = frozenset({SandboxState.RUNNING, SandboxState.SUSPENDED, SandboxState.RESUMING})  # the next use wakes it
NO_BUCKETS = (
    "buckets cannot be mounted into a sandbox that runs: create it with {'workspace': NAME} to have a workspace "
    "at /workspace, and put what a bucket holds into that workspace through the object-store door"
)


class SandboxBody(BodyModel):
    """What Atoll can do beyond the protocol, whose own client sends no body."""

    image: str = Field("host", min_length=1, max_length=255, description="a template; `host` is built in")
    workspace: str | None = Field(
        None, min_length=1, max_length=128, description="mounted at /workspace; without one that folder is empty"
    )
    network: Literal["none", "outgoing", "exposed"] | None = Field(
        None, description="default: outgoing; exposed with ports"
    )
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field(default_factory=list[int], max_length=64)
    name: str | None = Field(None, min_length=1, max_length=128)

    def spec(self, settings: Settings) -> SandboxSpec:
        """What a runtime is asked for."""
        mode = self.network or ("exposed" if self.ports else "outgoing")
        return SandboxSpec(
            image=self.image,
            work_dir=MOUNT_POINT,
            resources=settings.limits.defaults.resources(),
            network=NetworkMode(mode),
            ports=tuple(Port(port) for port in self.ports),
            workspaces=(WorkspaceMount(self.workspace),) if self.workspace else (),
        )


class MountBody(BodyModel):
    """POST /v1/sandbox/{id}/mount."""

    bucket: str = Field(max_length=1024)
    mountPath: str = Field(max_length=4096)
    options: dict[str, Any] = Field(default_factory=dict[str, Any])


class UnmountBody(BodyModel):
    """POST /v1/sandbox/{id}/unmount."""

    mountPath: str = Field(max_length=4096)


class AgentsSandboxAnswer(AnswerModel):
    id: str


class AgentsRunningAnswer(AnswerModel):
    running: bool


class AgentsDoneAnswer(AnswerModel):
    ok: Literal[True]


class SandboxHandlers:
    """One method for each operation."""

    def __init__(self, sandboxes: Sandboxes, lasting: LastingSandboxes, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._lasting = lasting
        self._settings = settings
        self._body_bytes = settings.server.body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SandboxBody, self._body_bytes, optional=True)
        request_id = trace_of(request.scope).request_id
        spec = body.spec(self._settings)
        work = self._lasting.create(principal, spec, name=body.name, request_id=request_id)
        # A client that goes away meanwhile never learns the id: the service then kills what it made.
        sandbox = await unless_disconnected(request.receive, work)
        trace_of(request.scope).sandbox_id = sandbox.id
        return json_response({"id": sandbox.id})

    async def running(self, request: Request, principal: Principal) -> Response:
        sandbox = await self._lasting.newest(principal, request.path_params["id"])
        return json_response({"running": sandbox.state in RUNS})

    async def delete(self, request: Request, principal: Principal) -> Response:
        request_id, sandbox_id = trace_of(request.scope).request_id, request.path_params["id"]
        if Scope.READ in principal.scopes:
            sandbox_id = (await self._lasting.newest(principal, sandbox_id)).id
        try:
            await self._sandboxes.kill(principal, sandbox_id, request_id=request_id)
        except Conflict:
            pass  # it has ended: what was asked for is so
        return json_response({"ok": True})

    async def mount(self, request: Request, principal: Principal) -> Response:
        return await self._no_bucket(request, principal, MountBody)

    async def unmount(self, request: Request, principal: Principal) -> Response:
        return await self._no_bucket(request, principal, UnmountBody)

    async def _no_bucket(self, request: Request, principal: Principal, model: type[BodyModel]) -> Response:
        principal.require(Scope.EXECUTE)
        await self._sandboxes.get(principal, request.path_params["id"])
        await read_model(request, model, self._body_bytes)
        raise Unsupported(NO_BUCKETS)
