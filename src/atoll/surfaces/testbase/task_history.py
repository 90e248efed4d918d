"""`/metrics/history`: how one's own tasks went. Testbase shows everybody's to anybody."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.principal import Principal
from atoll.domain.task import TaskState
from atoll.records.task_histories import TaskBrief
from atoll.services.tasks.history import TaskHistory, duration_s
from atoll.services.workspaces.names import WorkspaceNames
from atoll.surfaces.bodies import json_response
from atoll.surfaces.testbase.task_requests import LIMIT


class HistoryHandlers:
    """One method for each operation."""

    def __init__(self, history: TaskHistory, names: WorkspaceNames) -> None:
        self._history = history
        self._names = names

    async def list(self, request: Request, principal: Principal) -> Response:
        found = await self._history.of(principal, limit=LIMIT.number(request) or 100)
        names = await self._names.of(principal, {one.workspace for one in found})
        return json_response({"count": len(found), "history": [_shown(one, names[one.workspace]) for one in found]})


def _shown(one: TaskBrief, workspace: str) -> dict[str, Any]:
    took = duration_s(one)
    return {
        "workspaceId": workspace,
        "sessionId": one.thread,
        "startTime": one.started_at,
        "endTime": one.ended_at,
        "duration": None if took is None else round(took * 1000),
        "success": one.state is TaskState.SUCCEEDED,
    } | ({"error": one.error} if one.error else {})
