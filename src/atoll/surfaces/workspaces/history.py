"""The handlers of what a workspace went through: revisions, their files and differences, snapshots, going back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import Stream, at_most, begun, json_response, read_model, unless_disconnected
from atoll.surfaces.workspaces import answers
from atoll.surfaces.workspaces.requests import (
    AFTER,
    BEFORE,
    BELOW,
    DEPTH,
    ENTRIES_LIMIT,
    FROM,
    PATH,
    REVISION,
    REVISIONS_LIMIT,
    TEXT,
    TO,
    MessageBody,
    RestoreBody,
    SnapshotBody,
)


class HistoryHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._body_bytes = settings.server.body_bytes

    async def log(self, request: Request, principal: Principal) -> Response:
        found = await self._workspaces.history.log(
            principal,
            request.path_params["ws"],
            limit=REVISIONS_LIMIT.number(request) or 100,
            before=BEFORE.number(request),
        )
        return json_response({"revisions": [answers.revision(view, principal.id) for view in found]})

    async def take(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, MessageBody, self._body_bytes, optional=True)
        view = await self._workspaces.take(principal, request.path_params["ws"], body.message)
        return json_response(answers.revision(view, principal.id), 201)

    async def revision(self, request: Request, principal: Principal) -> Response:
        view = await self._workspaces.history.get(principal, request.path_params["ws"], request.path_params["rev"])
        return json_response(answers.revision(view, principal.id))

    async def files(self, request: Request, principal: Principal) -> Response:
        found = await self._workspaces.history.files(
            principal,
            request.path_params["ws"],
            REVISION.text(request) or "HEAD",
            path=BELOW.text(request) or "",
            depth=DEPTH.number(request) or 1,
            limit=ENTRIES_LIMIT.number(request) or 1000,
            after=AFTER.text(request),
        )
        return json_response(answers.listing(found))

    async def file(self, request: Request, principal: Principal) -> Response:
        entry, pieces = await self._workspaces.history.file(
            principal, request.path_params["ws"], PATH.text(request) or "", REVISION.text(request) or "HEAD"
        )
        headers = {"x-content-type-options": "nosniff", "atoll-mode": f"{entry.mode:o}"}
        return Stream(at_most(await begun(pieces), entry.size), headers=headers, size=entry.size)

    async def diff(self, request: Request, principal: Principal) -> Response:
        work = self._workspaces.history.diff(
            principal,
            request.path_params["ws"],
            FROM.text(request) or "HEAD~1",
            TO.text(request) or "HEAD",
            path=BELOW.text(request) or "",
            texts=TEXT.flag(request, default=True),
        )
        return json_response(answers.diff(await unless_disconnected(request.receive, work)))

    async def restore(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, RestoreBody, self._body_bytes, surrogates=True)
        restored = await self._workspaces.restoring.restore(
            principal, request.path_params["ws"], body.revision, body.path
        )
        written = {"entries": restored.entries, "bytes": restored.bytes}
        return json_response(answers.restored(restored, principal.id) | {"restored": written})

    async def undo(self, request: Request, principal: Principal) -> Response:
        restored = await self._workspaces.restoring.undo(principal, request.path_params["ws"])
        return json_response(answers.restored(restored, principal.id))

    async def keep(self, request: Request, principal: Principal) -> Response:
        """Make a snapshot."""
        body = await read_model(request, SnapshotBody, self._body_bytes, optional=True)
        found = await self._workspaces.access.find(principal, request.path_params["ws"], Permission.WRITE)
        made = await self._workspaces.snapshots.create(
            principal, found.workspace.id, name=body.name, own_key=body.ownKey, keep=body.keep
        )
        return json_response(answers.snapshot(made, found.workspace), 201)

    async def snapshots(self, request: Request, principal: Principal) -> Response:
        workspace = (
            await self._workspaces.access.find(principal, request.path_params["ws"], Permission.READ)
        ).workspace
        found = await self._workspaces.snapshots.list(principal, workspace.id)
        return json_response({"snapshots": [answers.snapshot(one, workspace) for one in found]})

    async def forget(self, request: Request, principal: Principal) -> Response:
        """Delete a snapshot."""
        await self._workspaces.snapshots.delete(principal, request.path_params["ws"], request.path_params["snap"])
        return json_response({"deleted": True})
