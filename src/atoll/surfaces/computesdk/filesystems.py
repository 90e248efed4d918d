"""File systems: workspaces under another name. An archive of one is a snapshot that retention leaves alone."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import NotFound
from atoll.domain.ids import workspace_id_of
from atoll.domain.principal import Principal
from atoll.domain.workspace import Snapshot
from atoll.services.workspaces.views import WorkspaceView
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model
from atoll.surfaces.models import AnswerModel, BodyModel

NOBODY = "ws_" + "0" * 32


class FilesystemBody(BodyModel):
    """POST /api/filesystems."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=4096)] | None = None
    group_id: Annotated[str, Field(max_length=128)] | None = Field(None, description="whose it is; default: one's own")


class ArchiveBody(BodyModel):
    """POST /api/filesystems/{fs}/archive."""

    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class RestoreArchiveBody(BodyModel):
    """POST /api/filesystems/{fs}/restore."""

    archive_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="default: the newest"
    )


class FilesystemAnswer(AnswerModel):
    """A file system."""

    id: str = Field(pattern=r"^fs_[0-9a-f]{32}$")
    name: str
    description: str | None
    owner_id: str
    size_bytes: int
    file_count: int
    created_at: datetime
    updated_at: datetime


class FilesystemsAnswer(AnswerModel):
    filesystems: list[FilesystemAnswer]


class ArchiveAnswer(AnswerModel):
    """An archive of a file system."""

    id: str
    filesystem_id: str
    name: str | None
    size_bytes: int
    created_at: datetime


class ArchivesAnswer(AnswerModel):
    archives: list[ArchiveAnswer]


class FilesystemDeletedAnswer(AnswerModel):
    deleted: bool


class FilesystemRestoredAnswer(AnswerModel):
    """What the file system holds now, and from what."""

    id: str
    archive_id: str
    size_bytes: int
    file_count: int


class FilesystemHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._body_bytes = settings.server.body_bytes
        self._list_items = settings.limits.list_items

    async def create(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, FilesystemBody, self._body_bytes)
        view = await self._workspaces.create(principal, body.name, description=body.description, group=body.group_id)
        return json_response(_filesystem(view), 201)

    async def list(self, _request: Request, principal: Principal) -> Response:
        found = await self._workspaces.list(principal, limit=self._list_items)
        return json_response({"filesystems": [_filesystem(view) for view in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        return json_response(_filesystem(await self._workspaces.get(principal, _id(request))))

    async def delete(self, request: Request, principal: Principal) -> Response:
        await self._workspaces.delete(principal, _id(request))
        return json_response({"deleted": True})

    async def archive(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, ArchiveBody, self._body_bytes, optional=True)
        made = await self._workspaces.snapshots.create(principal, _id(request), name=body.name, keep=True)
        return json_response(_archive(made), 201)

    async def archives(self, request: Request, principal: Principal) -> Response:
        found = await self._workspaces.snapshots.list(principal, _id(request))
        return json_response({"archives": [_archive(one) for one in found]})

    async def restore(self, request: Request, principal: Principal) -> Response:
        body = await read_model(request, RestoreArchiveBody, self._body_bytes, optional=True)
        archive_id = body.archive_id
        if archive_id is None:
            found = await self._workspaces.snapshots.list(principal, _id(request))
            if not found:
                raise NotFound("the file system has no archive")
            archive_id = found[0].id
        restored = await self._workspaces.restoring.restore(principal, _id(request), archive_id)
        now = restored.revision.revision
        return json_response(
            {
                "id": _public(now.workspace),
                "archive_id": archive_id,
                "size_bytes": now.bytes,
                "file_count": now.entries - 1,
            }
        )


def _id(request: Request) -> str:
    """The workspace that the path names: by id alone, since in this API names are no ids."""
    return workspace_id_of(request.path_params["fs"]) or NOBODY


def _public(workspace_id: str) -> str:
    return "fs_" + workspace_id.removeprefix("ws_")


def _filesystem(view: WorkspaceView) -> dict[str, Any]:
    one, head = view.workspace, view.head.revision
    return {
        "id": _public(one.id),
        "name": one.name,
        "description": one.description,
        "owner_id": one.owner,
        "size_bytes": head.bytes,
        "file_count": head.entries - 1,  # the root is no file
        "created_at": one.created_at,
        "updated_at": view.updated_at,
    }


def _archive(one: Snapshot) -> dict[str, Any]:
    return {
        "id": one.id,
        "filesystem_id": _public(one.workspace),
        "name": one.name,
        "size_bytes": one.bytes,
        "created_at": one.created_at,
    }
