"""`/sessions` and `/cache/clear`: the conversations that tasks continue, which lie in records and not in a cache."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.services.tasks.tasks import Tasks
from atoll.services.tasks.threads import NoThread
from atoll.services.workspaces.names import WorkspaceNames
from atoll.surfaces.bodies import json_response
from atoll.surfaces.operation import Parameter
from atoll.surfaces.testbase.errors import NoSession
from atoll.surfaces.testbase.task_answers import session

LISTED = 1_000
LIMIT = Parameter("limit", "at most so many; default: 1,000", int, minimum=1, maximum=10_000)
OFFSET = Parameter("offset", "after so many", int, minimum=0, maximum=10**9)
CLEARED = "Thread cache cleared"  # the protocol's words


class SessionHandlers:
    """One method for each operation."""

    def __init__(self, tasks: Tasks, names: WorkspaceNames) -> None:
        self._tasks = tasks
        self._names = names

    async def list(self, request: Request, principal: Principal) -> Response:
        limit, offset = LIMIT.number(request) or LISTED, OFFSET.number(request) or 0
        found = await self._tasks.threads(principal, limit=limit, offset=offset)
        names = await self._names.of(principal, {one.workspace for one in found})
        return json_response({"count": len(found), "sessions": [session(one, names[one.workspace]) for one in found]})

    async def active(self, request: Request, principal: Principal) -> Response:
        limit, offset = LIMIT.number(request) or LISTED, OFFSET.number(request) or 0
        found = await self._tasks.threads(principal, active=True, limit=limit, offset=offset)
        return json_response({"count": len(found), "sessions": [one.id for one in found]})

    async def get(self, request: Request, principal: Principal) -> Response:
        named = request.path_params["session"]
        try:
            found = await self._tasks.thread(principal, named)
        except NoThread:
            raise NoSession(named) from None
        names = await self._names.of(principal, [found.workspace])
        return json_response(session(found, names[found.workspace]))

    async def delete(self, request: Request, principal: Principal) -> Response:
        named = request.path_params["session"]
        try:
            await self._tasks.delete_thread(principal, named)
        except NoThread:
            raise NoSession(named) from None
        return json_response({"success": True, "sessionId": named})

    async def clear(self, _request: Request, principal: Principal) -> Response:
        """Nothing is cached that could be stale: a thread's state is in the records and the workspace."""
        principal.require(Scope.EXECUTE)
        return json_response({"success": True, "message": CLEARED})
