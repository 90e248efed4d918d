"""The Agent Workspace API: workspaces that agents make, share with each other and run commands in."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import Forbidden, InvalidInput
from atoll.domain.ids import workspace_id_of
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.workspace import Permission, Share
from atoll.services.workspaces.access import NotPermitted
from atoll.services.workspaces.sharing import PRINCIPAL_CHARS_MAX, TARGETS_MAX
from atoll.services.workspaces.views import WorkspaceView
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.terminal_platform.errors import BadRequest
from atoll.surfaces.terminal_platform.sandbox_config import AskedConfig, spec_of
from atoll.surfaces.words import words
from atoll.telemetry.trace import trace_of

NOBODY = "ws_" + "0" * 32
MAX_TIMEOUT_S = 86_400.0


class AgentWorkspaceBody(AnswerModel):
    """POST /workspaces."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=4096)] | None = None
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=64)] | None = None
    group_id: Annotated[str, Field(max_length=128)] | None = Field(None, description="whose it is; default: one's own")
    sandbox_config: AskedConfig = None


class CommandBody(AnswerModel):
    """POST /workspaces/{workspace}/exec."""

    command: Annotated[str, Field(min_length=1, max_length=131_072)] = Field(
        description="the program; without args it is split by shell-word rules"
    )
    args: list[str] | None = None
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = Field(None, description="seconds")

    def spec(self) -> ProcessSpec:
        argv = (self.command, *self.args) if self.args else words(self.command, "command")
        return ProcessSpec(argv=argv, timeout_s=self.timeout)


class AgentShareBody(AnswerModel):
    """POST /workspaces/{workspace}/share."""

    target_agent_ids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=PRINCIPAL_CHARS_MAX)]],
        Field(min_length=1, max_length=TARGETS_MAX),
    ]
    permission: str = Field("read", description="read, write or admin")


class AgentWorkspaceAnswer(AnswerModel):
    """A workspace as agents see it."""

    agent_id: str
    workspace_id: str
    sandbox_id: str | None
    name: str
    description: str | None
    created_at: datetime
    status: Literal["active"]
    shared_with: list[str]
    tags: list[str]


class AgentDeletedAnswer(AnswerModel):
    deleted: Literal[True]


class AgentExecAnswer(AnswerModel):
    workspace_id: str
    sandbox_id: str
    command: str
    args: list[str]
    status: Literal["completed", "timed_out"]
    stdout: str
    stderr: str
    exit_code: int


class AgentCollaboratorsAnswer(AnswerModel):
    collaborators: dict[str, str]


class AgentSharedAnswer(AgentCollaboratorsAnswer):
    shared: Literal[True]


class AgentRevokedAnswer(AnswerModel):
    revoked: Literal[True]


class AgentWorkspaceHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._body_bytes = settings.server.body_bytes
        self._output_bytes = settings.limits.run_output_bytes
        self._list_items = settings.limits.list_items
        self._defaults = settings.limits.defaults.resources()

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, AgentWorkspaceBody, self._body_bytes)
        view = await self._workspaces.create(
            principal,
            body.name,
            description=body.description,
            tags=tuple(body.tags or ()),
            sandbox_config=body.sandbox_config,
            group=body.group_id,
        )
        return json_response(_workspace(view))

    async def list(self, _request: Request, principal: Principal) -> Response:
        found = await self._workspaces.list(principal, limit=self._list_items)
        return json_response([_workspace(view) for view in found])

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_workspace(await self._workspaces.get(principal, _id(request))))

    async def delete(self, request: Request, principal: Principal) -> Response:
        request_id = trace_of(request.scope).request_id
        with _refusing("Only the workspace owner can delete it"):
            await self._workspaces.executing.end(principal, _id(request), request_id=request_id)
            await self._workspaces.delete(principal, _id(request))
        return json_response({"deleted": True})

    async def exec(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, CommandBody, self._body_bytes)
        work = self._workspaces.executing.run(
            principal,
            _id(request),
            body.spec(),
            self._shape,
            max_output_bytes=self._output_bytes,
            request_id=trace_of(request.scope).request_id,
        )
        with _refusing("Read-only access cannot execute commands"):
            ran = await unless_disconnected(request.receive, work)
        end = ran.result.exit
        return json_response(
            {
                "workspace_id": public_id(ran.workspace.id),
                "sandbox_id": ran.workspace.sandbox_id,
                "command": body.command,
                "args": body.args or [],
                "status": "timed_out" if end.timed_out else "completed",
                "stdout": ran.result.stdout.decode(errors="replace"),
                "stderr": ran.result.stderr.decode(errors="replace"),
                "exit_code": end.code,
            }
        )

    async def share(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, AgentShareBody, self._body_bytes)
        if body.permission not in list(Permission):
            raise BadRequest("Permission must be read, write, or admin")
        with _refusing("Only the workspace owner can share it"):
            try:
                found = await self._workspaces.sharing.share(
                    principal, _id(request), body.target_agent_ids, Permission(body.permission)
                )
            except InvalidInput as error:
                raise InvalidInput(error.message, field="target_agent_ids") from None
        return json_response({"shared": True, "collaborators": _collaborators(found)})

    async def collaborators(self, request: Request, principal: Principal) -> Response:
        found = await self._workspaces.sharing.list(principal, _id(request))
        return json_response({"collaborators": _collaborators(found)})

    async def revoke(self, request: Request, principal: Principal) -> Response:
        with _refusing("Only the workspace owner can revoke access"):
            await self._workspaces.sharing.revoke(principal, _id(request), request.path_params["agent"])
        return json_response({"revoked": True})

    def _shape(self, config: dict[str, Any]) -> SandboxSpec:
        return spec_of(config, self._defaults)


@contextmanager
def _refusing(text: str) -> Generator[None]:
    """What a collaborator hears who asks for more than was shared with it."""
    try:
        yield
    except NotPermitted:
        raise Forbidden(text) from None


def _id(request: Request) -> str:
    """The workspace that the path names: by id alone, since in this API names are no ids."""
    return workspace_id_of(request.path_params["workspace"]) or NOBODY


def public_id(workspace_id: str) -> str:
    """A workspace's id as this API spells it: a UUID."""
    return str(uuid.UUID(hex=workspace_id.removeprefix("ws_")))


def _workspace(view: WorkspaceView) -> dict[str, Any]:
    one = view.workspace
    return {
        "agent_id": one.owner,
        "workspace_id": public_id(one.id),
        "sandbox_id": one.sandbox_id,
        "name": one.name,
        "description": one.description,
        "created_at": one.created_at,
        "status": "active",
        "shared_with": [share.principal for share in view.shares],
        "tags": list(one.tags),
    }


def _collaborators(found: Iterable[Share]) -> dict[str, str]:
    return {share.principal: str(share.permission) for share in found}
