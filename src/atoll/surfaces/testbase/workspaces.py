"""Testbase's `/workspaces`, for a listener of its own: on the common port these paths are the Agent Workspace API's.

Nothing mounts it yet; whoever serves Testbase alone does, with `workspace_operations`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.services.workspaces.views import WorkspaceView
from atoll.services.workspaces.workspaces import Workspaces
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.testbase.errors import TestbaseError


class TestbaseWorkspace(AnswerModel):
    __test__ = False
    id: str
    created: datetime
    modified: datetime
    fileCount: int


class TestbaseWorkspaces(AnswerModel):
    __test__ = False
    count: int
    workspaces: list[TestbaseWorkspace]


class WorkspaceDeletedAnswer(AnswerModel):
    success: Literal[True]
    workspaceId: str


class WorkspaceHandlers:
    """One method for each operation."""

    def __init__(self, workspaces: Workspaces, settings: Settings) -> None:
        self._workspaces = workspaces
        self._items = settings.limits.list_items

    async def list(self, _request: Request, principal: Principal) -> Response:
        found = await self._workspaces.list(principal, limit=self._items)
        return json_response({"count": len(found), "workspaces": [_shown(view) for view in found]})

    async def delete(self, request: Request, principal: Principal) -> Response:
        workspace = request.path_params["ws"]
        await self._workspaces.delete(principal, workspace)
        return json_response({"success": True, "workspaceId": workspace})


def workspace_operations(workspaces: Workspaces, settings: Settings) -> list[Operation]:
    """What a listener of Testbase's alone has besides."""
    of, tag, error = WorkspaceHandlers(workspaces, settings), "testbase workspaces", TestbaseError
    return [
        Operation(
            "GET", "/workspaces", of.list, "listTestbaseWorkspaces", "Your workspaces",
            answers=(Answer(200, "the workspaces", TestbaseWorkspaces),), errors=(503,), tag=tag, error=error,
        ),
        Operation(
            "DELETE", "/workspaces/{ws}", of.delete, "deleteTestbaseWorkspace", "Delete a workspace",
            answers=(Answer(200, "it is gone", WorkspaceDeletedAnswer),),
            errors=(404, 409, 503, 504), tag=tag, error=error,
        ),
    ]  # fmt: skip


def _shown(view: WorkspaceView) -> dict[str, object]:
    """Called by its name, by which `/execute` knows it; entries but the root."""
    one = view.workspace
    return {
        "id": one.name,
        "created": one.created_at,
        "modified": view.updated_at,
        "fileCount": max(0, view.head.revision.entries - 1),
    }
