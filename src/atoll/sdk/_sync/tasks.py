# Made by scripts/unasync.py from ../_async/tasks.py: change that file, not this one.
"""Tasks of agents and their sessions: begin one, follow what it does, cancel it; agents and the CLI use it."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from atoll.domain.errors import AtollError, RateLimited
from atoll.sdk._io import sleep
from atoll.sdk._sync.api import Api, connect
from atoll.sdk._sync.retry import Retry
from atoll.sdk.errors import ConnectionFailed
from atoll.sdk.requests import target_of
from atoll.sdk.sse import EventReader
from atoll.sdk.task_values import ENDED, RunEvent, SessionInfo, TaskInfo, event_of, session_of, task_of

SILENCE_S = 60.0  # the server says something every few seconds: after so long the connection is taken for dead
BUSY_S_MAX = 30
CANCEL_S = 120.0  # the agent's grace, and the saving of its work


class Tasks:
    """The tasks of this credential. Errors: NotFound, Forbidden, Unauthenticated, ConnectionFailed."""

    def __init__(self, *, url: str | None = None, api_key: str | None = None, connection: Api | None = None) -> None:
        self._api: Api = connection or connect(url, api_key)

    def begin(self, request: Mapping[str, Any], *, key: str | None = None) -> TaskInfo:
        """Ask for a task as `POST /execute` takes it, and do not wait for its end. A connection that breaks makes no
        second one; neither does asking again with the same `key`. InsufficientCredit, SpendingLimitExceeded,
        QuotaExceeded; NotFound: no such session."""
        return task_of(self._api.call("POST", "/execute", {**request, "wait": False}, once=key or True))

    def get(self, task: str) -> TaskInfo:
        """One of them."""
        return task_of(self._api.call("GET", target_of("/tasks", task)))

    def list(self, *, limit: int = 50, session: str | None = None, state: str | None = None) -> Sequence[TaskInfo]:
        """The newest first."""
        answer = self._api.call("GET", target_of("/tasks", limit=limit, sessionId=session, state=state))
        return [task_of(value) for value in answer["tasks"]]

    def cancel(self, task: str) -> TaskInfo:
        """End it: its program is asked to, then made to; what it did is kept. Returns it as it ended."""
        return task_of(self._api.call("POST", target_of("/tasks", task, "cancel"), timeout_s=CANCEL_S))

    def events(self, task: str, *, after: int = 0) -> Generator[RunEvent]:
        """What it did since event number `after`, then what it does, to its end. A connection that breaks, or a server
        that starts again, is waited for; no event is lost or told twice."""
        retry = Retry()
        while True:
            try:
                with closing(self._stream(task, after)) as events:
                    for event in events:
                        retry.reset()
                        if event.seq and event.seq <= after:
                            continue
                        after = event.seq or after
                        yield event
                        if event.type == ENDED:
                            return
                raise ConnectionFailed("the stream of events ended before the task did")
            except RateLimited as error:  # so many runs are followed at once: the task goes on meanwhile
                sleep(min(error.retry_after_s, BUSY_S_MAX))
            except AtollError as error:
                retry.after(error)

    def sessions(self) -> Sequence[SessionInfo]:
        """What tasks can continue."""
        return [session_of(value) for value in (self._api.call("GET", "/sessions"))["sessions"]]

    def session(self, session: str) -> SessionInfo:
        """One of them."""
        return session_of(self._api.call("GET", target_of("/sessions", session)))

    def delete_session(self, session: str) -> None:
        """Nothing continues it any more. NotFound."""
        self._api.call("DELETE", target_of("/sessions", session))

    def _stream(self, task: str, after: int) -> Generator[RunEvent]:
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        target = target_of("/tasks", task, "events")
        body = self._api.stream(target, timeout_s=SILENCE_S, headers=headers)
        reader = EventReader(str(after))
        with body:
            for piece in body:
                for found in reader.feed(piece):
                    try:
                        value: object = json.loads(found.data)
                    except ValueError:
                        continue
                    yield event_of(int(found.id) if found.id.isdecimal() else 0, found.event, value)


def ended(tasks: Tasks, task: str, event: RunEvent | None) -> TaskInfo:
    """How a task ended: as its last event says where that has it all, else as the server says."""
    if event is not None and "output" in event.data and "sessionId" in event.data:
        found = task_of(event.data)
        if found.ended:
            return found
    retry = Retry()
    while True:
        try:
            return tasks.get(task)
        except AtollError as error:
            retry.after(error)
