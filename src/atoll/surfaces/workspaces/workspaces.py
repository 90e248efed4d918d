"""The handlers of workspaces themselves: make, look, change, delete, share, fork, merge, verify."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.workspaces import answers
from atoll.surfaces.workspaces.requests import (
    NAME,
    SHARED,
    TAG,
    ChangesBody,
    ForkBody,
    MergeBody,
    ShareBody,
    WorkspaceBody,
)


class WorkspaceHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._body_bytes = settings.server.body_bytes
        self._list_items = settings.limits.list_items

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, WorkspaceBody, self._body_bytes)
        view = await self._workspaces.create(
            principal,
            body.name,
            description=body.description,
            tags=tuple(body.tags),
            quota_bytes=body.quotaBytes,
            quota_inodes=body.quotaInodes,
            automatic=body.automatic,
            group=body.group,
        )
        return json_response(answers.workspace(view), 201)

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._workspaces.list(
            principal,
            name=NAME.text(request),
            tag=TAG.text(request),
            shared=SHARED.flag(request),
            limit=self._list_items,
        )
        return json_response({"workspaces": [answers.workspace(view) for view in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        view = await self._workspaces.get(principal, request.path_params["ws"])
        return json_response(answers.workspace(view))

    async def change(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ChangesBody, self._body_bytes)
        view = await self._workspaces.change(principal, request.path_params["ws"], body.changes())
        return json_response(answers.workspace(view))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._workspaces.delete(principal, request.path_params["ws"])
        return json_response({"deleted": True})

    async def fork(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ForkBody, self._body_bytes)
        view = await self._workspaces.forks.fork(
            principal, request.path_params["ws"], body.name, body.revision, body.group
        )
        return json_response(answers.workspace(view), 201)

    async def merge(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, MergeBody, self._body_bytes)
        merged = await self._workspaces.merging.merge(
            principal, request.path_params["ws"], body.source, body.revision, body.base
        )
        return json_response(answers.merged(merged, principal.id))

    async def verify(self, request: Request, principal: Principal) -> Response:
        work = self._workspaces.verify(principal, request.path_params["ws"])
        return json_response(answers.report(await unless_disconnected(request.receive, work)))

    async def collaborators(self, request: Request, principal: Principal) -> Response:
        found = await self._workspaces.sharing.list(principal, request.path_params["ws"])
        return json_response(answers.collaborators(found))

    async def share(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ShareBody, self._body_bytes)
        found = await self._workspaces.sharing.share(
            principal, request.path_params["ws"], [request.path_params["principal"]], Permission(body.permission)
        )
        return json_response(answers.collaborators(found))

    async def revoke(self, request: Request, principal: Principal) -> Response:
        await self._workspaces.sharing.revoke(principal, request.path_params["ws"], request.path_params["principal"])
        return json_response({"revoked": True})
