"""The Snapshot API: it keeps the caller's default workspace, and goes back to what it kept."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import Corrupt, DeadlineExceeded, Internal, NotFound, Unavailable
from atoll.domain.principal import Principal
from atoll.domain.workspace import DEFAULT_NAME, Snapshot
from atoll.services.workspaces.access import NoWorkspace
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.terminal_platform.errors import BadRequest, Failed

SNAPSHOT_ID = re.compile(r"snap_\d{4}_\d{2}_\d{2}_\d{6}(_\d{1,9})?", re.ASCII)


class SnapshotIdBody(AnswerModel):
    """POST /snapshot/restore."""

    snapshot_id: str


class SnapshotDoneAnswer(AnswerModel):
    success: Literal[True]
    message: str
    snapshot_id: str
    size: str | None


class KeptAnswer(AnswerModel):
    snapshot_id: str
    size: int
    created_at: datetime


class KeptListAnswer(AnswerModel):
    snapshots: list[KeptAnswer]


class SnapshotHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._body_bytes = settings.server.body_bytes

    async def create(self, _request: Request, principal: Principal) -> Response:
        try:
            made = await self._workspaces.snapshots.create(principal, DEFAULT_NAME)
        except NotFound as error:
            raise _lost(error) from None
        except (Internal, Unavailable, DeadlineExceeded, Corrupt) as error:
            raise Failed(f"Snapshot creation failed: {error.message}") from error
        return _done("created", made.id, human_size(made.bytes))

    async def restore(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, SnapshotIdBody, self._body_bytes)
        snapshot_id = _checked(body.snapshot_id)
        try:
            await self._workspaces.restoring.restore(principal, DEFAULT_NAME, snapshot_id)
        except NotFound as error:
            raise _lost(error, snapshot_id) from None
        return _done("restored", snapshot_id)

    async def list(self, _request: Request, principal: Principal) -> Response:
        try:
            found = await self._workspaces.snapshots.list(principal, DEFAULT_NAME)
        except NotFound as error:
            raise _lost(error) from None
        return json_response({"snapshots": [_kept(one) for one in found]})

    async def delete(self, request: Request, principal: Principal) -> Response:
        snapshot_id = _checked(request.path_params["snap"])
        try:
            await self._workspaces.snapshots.delete(principal, DEFAULT_NAME, snapshot_id)
        except NotFound as error:
            raise _lost(error, snapshot_id) from None
        return _done("deleted", snapshot_id)


def human_size(size: int) -> str:
    """1234 -> `1.2KB`."""
    amount = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024:
            return f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}TB"


def _checked(snapshot_id: str) -> str:
    if not SNAPSHOT_ID.fullmatch(snapshot_id):
        raise BadRequest("Invalid snapshot ID format")
    return snapshot_id


def _lost(error: NotFound, snapshot_id: str = "") -> NotFound:
    """In this API's own words, that the workspace is not there, or the snapshot."""
    if isinstance(error, NoWorkspace):
        return NotFound(f"Workspace not found: {DEFAULT_NAME}")
    return NotFound(f"Snapshot not found: {snapshot_id}")


def _done(what: str, snapshot_id: str, size: str | None = None) -> Response:
    message = f"Snapshot {what} successfully"
    return json_response({"success": True, "message": message, "snapshot_id": snapshot_id, "size": size})


def _kept(one: Snapshot) -> dict[str, object]:
    return {"snapshot_id": one.id, "size": one.bytes, "created_at": one.created_at}
