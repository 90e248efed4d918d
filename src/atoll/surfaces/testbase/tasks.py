"""`/execute` and `/tasks`: the handlers that begin tasks, tell of them and end them.

`/execute` has two halves: one that records the task, which happens once for one Idempotency-Key, and one that waits for
its end and answers, as often as somebody asks. So an answer outlives the connection, and the server, that it began on.
"""

from __future__ import annotations

import json
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.errors import InvalidInput
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.task import Task, TaskState
from atoll.services.tasks.money import TaskUsage
from atoll.services.tasks.tasks import LISTED_CHARS, Tasks
from atoll.services.tasks.threads import NoThread
from atoll.services.workspaces.names import WorkspaceNames
from atoll.settings import Settings
from atoll.surfaces.bodies import json_response, read_model, unless_disconnected
from atoll.surfaces.money import money_response
from atoll.surfaces.routing import REPLAYED
from atoll.surfaces.testbase.errors import NoSession
from atoll.surfaces.testbase.task_answers import executed, told
from atoll.surfaces.testbase.task_requests import AFTER, LIMIT, OFFSET, SESSION, STATE, ExecuteBody
from atoll.surfaces.testbase.task_stream import TASK_HEADER, TaskStreams, last_event_id, wants_stream
from atoll.telemetry.trace import trace_of

ACCEPTED = 202


class TaskHandlers:
    """One method for each operation."""

    def __init__(self, tasks: Tasks, names: WorkspaceNames, settings: Settings) -> None:
        self._tasks = tasks
        self._names = names
        self._streams = TaskStreams(tasks, names, settings.limits.ws_per_key)
        self._body_bytes = settings.server.body_bytes

    async def begin(self, request: Request, principal: Principal) -> Response:
        """Which task it is, for `answer`; money is looked at before what is wrong with the body."""
        principal.require(Scope.EXECUTE)
        try:
            body = await read_model(request, ExecuteBody, self._body_bytes)
            asked = body.request()
        except InvalidInput:
            await self._tasks.check(principal)
            raise
        try:
            task = await self._tasks.submit(principal, asked, request_id=trace_of(request.scope).request_id)
        except NoThread:
            raise NoSession(body.sessionId or "") from None
        return json_response({"task": task.id, "workspace": body.workspaceId, "waits": body.waits}, ACCEPTED)

    async def answer(self, request: Request, principal: Principal, begun: Response) -> Response:
        """What becomes of it: as events, at once, or when it has ended. A client that goes away ends nothing."""
        said = json.loads(bytes(begun.body))
        whose = _reading(principal)
        task = await self._tasks.get(whose, said["task"])
        headers = {TASK_HEADER: task.id} | ({REPLAYED: "true"} if REPLAYED in begun.headers else {})
        if wants_stream(request):
            stream = await self._streams.answer(whose, task, last_event_id(request) or 0)
            stream.headers.update(headers)
            return stream
        if not said["waits"]:
            return await self._told(whose, task, ACCEPTED, headers)
        task = await unless_disconnected(request.receive, self._tasks.wait(whose, task.id))
        status, body = executed(task, await self._tasks.usage(task), said["workspace"])
        return money_response(body, int(status), headers)

    async def list(self, request: Request, principal: Principal) -> Response:
        state = STATE.text(request)
        found = await self._tasks.list(
            principal,
            states=None if state is None else {TaskState(state)},
            thread=SESSION.text(request),
            limit=LIMIT.number(request) or 100,
            offset=OFFSET.number(request) or 0,
        )
        paid = next((task for task in found if not task.internal), None)
        account = None if paid is None else (await self._tasks.usage(paid)).account  # all are of one payer
        names = await self._names.of(principal, {task.spec.workspace for task in found})
        used = [TaskUsage(task.tokens, task.cost, 0, None if task.internal else account) for task in found]
        shown = [told(task, each, names[task.spec.workspace]) for task, each in zip(found, used, strict=True)]
        for one in shown:
            one["task"] = one["task"][:LISTED_CHARS]
        return money_response({"count": len(shown), "tasks": shown})

    async def get(self, request: Request, principal: Principal) -> Response:
        return await self._told(principal, await self._tasks.get(principal, request.path_params["task"]))

    async def events(self, request: Request, principal: Principal) -> Response:
        after = last_event_id(request)
        if after is None:
            after = AFTER.number(request) or 0
        task = await self._tasks.get(principal, request.path_params["task"])
        return await self._streams.answer(principal, task, after)

    async def cancel(self, request: Request, principal: Principal) -> Response:
        return await self._told(principal, await self._tasks.cancel(principal, request.path_params["task"]))

    async def _told(
        self, principal: Principal, task: Task, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        names = await self._names.of(principal, [task.spec.workspace])
        return money_response(told(task, await self._tasks.usage(task), names[task.spec.workspace]), status, headers)


def _reading(principal: Principal) -> Principal:
    """Whoever may execute may read what comes of it."""
    return replace(principal, scopes=principal.scopes | {Scope.READ})
