"""A task's events as server-sent ones (https://html.spec.whatwg.org/multipage/server-sent-events.html).

`id` is the event's number, which a client that comes back sends as Last-Event-ID; the last event, `task.ended`, carries
the task as it ended, with its usage and bill. Comments keep the connection while nothing happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request

from atoll.domain.errors import InvalidInput, RateLimited
from atoll.domain.principal import Principal
from atoll.domain.task import Task, TaskEvent
from atoll.services.tasks.tasks import Tasks
from atoll.services.workspaces.names import WorkspaceNames
from atoll.surfaces.bodies import Stream, begun, close_iterator, json_bytes
from atoll.surfaces.money import money_json
from atoll.surfaces.testbase.task_answers import told

MEDIA = "text/event-stream"
TASK_HEADER = "atoll-task"
KEEP_ALIVE_S = 15.0
AGAIN_MS = 1_000
ENDED = "task.ended"
SEQ_DIGITS_MAX = 15


def wants_stream(request: Request) -> bool:
    """Whether the client asks for events rather than for one answer."""
    kinds = ",".join(request.headers.getlist("accept")).lower().split(",")
    return any(kind.partition(";")[0].strip() == MEDIA for kind in kinds)


def last_event_id(request: Request) -> int | None:
    """The number of the last event that a client has; InvalidInput for what is none."""
    text = request.headers.get("last-event-id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= SEQ_DIGITS_MAX):
        raise InvalidInput("Last-Event-ID must be the id of an event", field="Last-Event-ID")
    return int(text)


class TaskStreams:
    """Those that are open, so many for one credential at most."""

    def __init__(self, tasks: Tasks, names: WorkspaceNames, per_key: int) -> None:
        self._tasks = tasks
        self._names = names
        self._per_key = per_key
        self._open: Counter[str] = Counter()

    async def answer(self, principal: Principal, task: Task, after: int) -> Stream:
        """What tells what happens in the task behind that event, to its end. RateLimited."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", TASK_HEADER: task.id}
        pieces = await begun(self._counted(principal, task.id, after))
        return Stream(pieces, headers=headers, media_type=MEDIA)

    async def _counted(self, principal: Principal, task_id: str, after: int) -> AsyncGenerator[bytes]:
        key, most = principal.credential, self._per_key
        if self._open[key] >= most:
            raise RateLimited(f"this key has {most} streams of tasks open already ({most}/{most})", retry_after_s=5)
        self._open[key] += 1
        try:
            async with aclosing(self._frames(principal, task_id, after)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    async def _frames(self, principal: Principal, task_id: str, after: int) -> AsyncGenerator[bytes]:
        events = self._tasks.events(principal, task_id, after=after)
        next_one: asyncio.Future[TaskEvent | None] | None = None
        try:
            yield b"retry: %d\n\n" % AGAIN_MS
            while True:
                next_one = next_one or asyncio.ensure_future(anext(events, None))
                done, _ = await asyncio.wait({next_one}, timeout=KEEP_ALIVE_S)
                if not done:
                    yield b": the task goes on\n\n"
                    continue
                event, next_one = next_one.result(), None
                if event is None:
                    return
                yield await self._frame(principal, task_id, event)
        finally:
            if next_one is not None:
                next_one.cancel()
                await asyncio.gather(next_one, return_exceptions=True)
            await close_iterator(events)

    async def _frame(self, principal: Principal, task_id: str, event: TaskEvent) -> bytes:
        shown = {"seq": event.seq, "type": event.type, "at": event.at, "data": dict(event.data)}
        if event.type == ENDED:
            task = await self._tasks.get(principal, task_id)
            names = await self._names.of(principal, [task.spec.workspace])
            ended = told(task, await self._tasks.usage(task), names[task.spec.workspace])
            data = money_json(shown | {"data": dict(event.data) | ended})
        else:
            data = json_bytes(shown)
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), data)
