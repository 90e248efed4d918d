"""A server of tasks in memory, as docs/tasks.md has it: for tests of clients only. Its agent is a Python function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.sdk.fake_workspaces import FakeWorkspaces, Workspace
from tests.sdk.local_process import Refused
from tests.sdk.stand_in import KEY

Event = tuple[str, dict[str, Any]]
Work = Callable[[Workspace], Iterator[Event]]
USAGE = {"inputTokens": 6548, "outputTokens": 108, "totalTokens": 6656, "totalCost": 0.10308}
BILLING = {"balanceAfter": 9.89692, "totalSpent": 0.10308}


def says_hello(workspace: Workspace) -> Iterator[Event]:
    """What an agent does unless a test says otherwise."""
    yield "message.delta", {"text": "Created "}
    yield "command", {"command": "touch hello.py", "output": "", "exit_code": 0, "status": "completed"}
    workspace.write("hello.py", b"print('hello')\n")
    yield "file_change", {"changes": [{"path": "hello.py", "kind": "add"}]}
    yield "message", {"text": "Created hello.py"}


@dataclass
class Task:
    id: str
    request: dict[str, Any]
    session: str
    events: list[Event] = field(default_factory=list)
    state: str = "queued"
    output: str = ""
    end: dict[str, Any] = field(default_factory=dict)

    def answer(self) -> dict[str, Any]:
        about = {"id": self.id, "state": self.state, "task": self.request["task"], "sessionId": self.session}
        return about | {"workspaceId": self.request["workspaceId"], "output": self.output} | self.end


class FakeTasks:
    """`requests` are the bodies of POST /execute by Idempotency-Key; `refuse` is raised instead of beginning a task;
    `held` keeps tasks from going on after their first event."""

    def __init__(self, workspaces: FakeWorkspaces) -> None:
        self.work: Work = says_hello
        self.end: dict[str, Any] = {"state": "succeeded", "reason": "done", "usage": USAGE, "billing": BILLING}
        self.tells_all = True  # the last event has the whole result
        self.refuse: tuple[int, dict[str, Any]] | None = None
        self.held = False
        self.cut_after: list[int] = []  # events after which streams break, one a stream
        self.requests: list[dict[str, Any]] = []
        self.resumed: list[str | None] = []  # Last-Event-ID of each stream
        self.cancelled: list[str] = []
        self.cancel_hangs = False
        self.busy = 0  # so many streams are refused
        self.deleted: list[str] = []
        self.all: dict[str, Task] = {}
        self._keys: dict[str, Task] = {}
        self._workspaces = workspaces
        self.app = Starlette(
            routes=[
                self._route("/execute", self.execute, "POST"),
                self._route("/tasks", self.list, "GET"),
                self._route("/tasks/{id}", self.get, "GET"),
                self._route("/tasks/{id}/events", self.follow, "GET"),
                self._route("/tasks/{id}/cancel", self.cancel, "POST"),
                self._route("/sessions", self.sessions, "GET"),
                self._route("/sessions/{id}", self.delete_session, "DELETE"),
            ]
        )

    def _route(self, path: str, handler: Any, method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                if request.headers.get("authorization") != f"Bearer {KEY}":
                    raise Refused(401, "UNAUTHORIZED", "a valid API key is required")
                answer = await handler(request)
            except Refused as refused:
                return refused.response()
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return Route(path, endpoint, methods=[method])

    async def execute(self, request: Request) -> Any:
        key = request.headers["idempotency-key"]
        if key in self._keys:
            return JSONResponse(self._keys[key].answer(), 202)
        body = await request.json()
        self.requests.append(body)
        if self.refuse is not None:
            return JSONResponse(self.refuse[1], self.refuse[0])
        session = body.get("sessionId")
        if session is not None and session not in {task.session for task in self.all.values()}:
            return JSONResponse({"error": "Session not found", "sessionId": session}, 404)
        number = len(self.all) + 1
        task = Task(f"task_{number:024x}", body, session or f"thread_{number:024x}")
        self.all[task.id] = self._keys[key] = task
        found = [one for one in self._workspaces.all.values() if body["workspaceId"] in (one.name, one.id)]
        workspace = found[0] if found else self._workspaces.make(body["workspaceId"])
        work = asyncio.get_running_loop().create_task(self._run(task, workspace))
        work.add_done_callback(lambda done: done.cancelled() or done.result())
        return JSONResponse(task.answer(), 202)

    async def _run(self, task: Task, workspace: Workspace) -> None:
        task.state = "running"
        task.events.append(("task.started", {}))
        while self.held and task.id not in self.cancelled:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if task.id in self.cancelled:
            workspace.write("partial.txt", b"so far\n")
            self._ended(task, {"state": "cancelled", "reason": "cancelled", "usage": USAGE, "billing": BILLING})
            return
        for kind, data in self.work(workspace):
            if kind == "message":
                task.output = data["text"]
            task.events.append((kind, data))
            await asyncio.sleep(0)
        self._ended(task, self.end)

    def _ended(self, task: Task, end: dict[str, Any]) -> None:
        task.state, task.end = end["state"], end
        told = task.answer() if self.tells_all else {"state": end["state"], "reason": end["reason"]}
        task.events.append(("task.ended", told))

    async def follow(self, request: Request) -> Response:
        task = self.find(request)
        if self.busy:
            self.busy -= 1
            return JSONResponse({"error": "Too many requests", "message": "busy"}, 429, {"Retry-After": "1"})
        last = request.headers.get("last-event-id")
        self.resumed.append(last)

        async def events() -> AsyncIterator[bytes]:
            yield b": hello\n\n"
            at, told = int(last or 0), 0
            cut = self.cut_after.pop(0) if self.cut_after else None
            while True:
                if at < len(task.events):
                    kind, data = task.events[at]
                    at += 1
                    whole = {"seq": at, "type": kind, "at": "2026-01-01T00:00:00Z", "data": data}
                    text = f"id: {at}\nevent: {kind}\ndata: {json.dumps(whole)}\n\n".encode()
                    if told == cut:
                        yield text[: len(text) // 2]
                        return  # in the middle of an event
                    yield text
                    told += 1
                    if kind == "task.ended":
                        return
                else:
                    await asyncio.sleep(0.002)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def cancel(self, request: Request) -> Any:
        task = self.find(request)
        self.cancelled.append(task.id)
        while not task.end or self.cancel_hangs:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return task.answer()

    async def get(self, request: Request) -> Any:
        return self.find(request).answer()

    async def list(self, request: Request) -> Any:
        return {"count": len(self.all), "tasks": [task.answer() for task in reversed(self.all.values())]}

    async def sessions(self, request: Request) -> Any:
        names = {task.session: task for task in self.all.values()}
        found = [
            {"sessionId": name, "threadId": name, "workspaceId": task.request["workspaceId"], "taskCount": 1}
            for name, task in names.items()
            if name not in self.deleted
        ]
        return {"count": len(found), "sessions": found}

    async def delete_session(self, request: Request) -> Any:
        session = request.path_params["id"]
        if session not in {task.session for task in self.all.values()} or session in self.deleted:
            return JSONResponse({"error": "Session not found", "sessionId": session}, 404)
        self.deleted.append(session)
        return {"success": True, "sessionId": session}

    def find(self, request: Request) -> Task:
        if request.path_params["id"] not in self.all:
            raise Refused(404, "NOT_FOUND", "no such task")
        return self.all[request.path_params["id"]]
