"""The operations of tasks and sessions, declared in one table; app.py makes the routes and the document of it."""

from __future__ import annotations

from dataclasses import replace

from atoll.services.tasks.history import TaskHistory
from atoll.services.tasks.tasks import Tasks
from atoll.services.workspaces.names import WorkspaceNames
from atoll.settings import Settings
from atoll.surfaces.operation import Answer, Once, Operation
from atoll.surfaces.testbase import sessions, task_answers
from atoll.surfaces.testbase import task_requests as requests
from atoll.surfaces.testbase.errors import EXECUTIONS
from atoll.surfaces.testbase.sessions import SessionHandlers
from atoll.surfaces.testbase.task_history import HistoryHandlers
from atoll.surfaces.testbase.task_stream import MEDIA
from atoll.surfaces.testbase.tasks import TaskHandlers

TASK = "/tasks/{task}"
SESSIONS = "/sessions"
SESSION = SESSIONS + "/{session}"
EXECUTE_TEXT = """Answers when the task has ended; a client that goes away ends nothing. With
`Accept: text/event-stream` it answers with the task's events as they happen, with `wait: false` at once."""
EVENTS_TEXT = "`id` is the event's number, for Last-Event-ID; `task.ended` comes last and carries the task as it ended."


def task_operations(tasks: Tasks, history: TaskHistory, names: WorkspaceNames, settings: Settings) -> list[Operation]:
    """What is served of tasks, and of the sessions that they continue."""
    declared = [
        *_tasks(TaskHandlers(tasks, names, settings)),
        *_sessions(SessionHandlers(tasks, names)),
        _history(HistoryHandlers(history, names)),
    ]
    return [replace(one, tag="tasks", error=task_answers.ExecuteError) for one in declared]


def _tasks(of: TaskHandlers) -> list[Operation]:
    task = Answer(200, "the task", task_answers.TaskAnswer)
    events = Answer(200, "its events, as server-sent ones", None, MEDIA)
    name = (("Atoll-Task", "the task's id"),)
    lost = (404, 503, 504)
    return [
        Operation(
            "POST", "/execute", of.begin, "execute", "Have an agent do a task in a workspace",
            answers=(
                Answer(200, "what came of it", task_answers.ExecutedAnswer, headers=name),
                Answer(200, "its events, as server-sent ones", None, MEDIA, headers=name),
                Answer(202, "the task, with `wait: false`", task_answers.TaskAnswer, headers=name),
            ),
            body=requests.ExecuteBody, errors=(400, 402, 404, 409, 413, 500, 501, 503, 504), once=Once.RAN,
            then=of.answer, rates=(EXECUTIONS,), description=EXECUTE_TEXT,
        ),
        Operation(
            "GET", "/tasks", of.list, "listTasks", "Your tasks, newest first",
            answers=(Answer(200, "the tasks", task_answers.TasksAnswer),),
            parameters=(requests.LIMIT, requests.OFFSET, requests.STATE, requests.SESSION), errors=(400, 503),
        ),
        Operation("GET", TASK, of.get, "getTask", "Look at a task", answers=(task,), errors=lost),
        Operation(
            "GET", TASK + "/events", of.events, "streamTask", "What happened in a task, and what happens",
            answers=(events,), parameters=(requests.AFTER,), errors=(400, *lost), description=EVENTS_TEXT,
        ),
        Operation(
            "POST", TASK + "/cancel", of.cancel, "cancelTask", "End a task; what it did is kept",
            answers=(Answer(200, "the task as it ended", task_answers.TaskAnswer),), errors=(409, *lost),
        ),
    ]  # fmt: skip


def _history(of: HistoryHandlers) -> Operation:
    return Operation(
        "GET", "/metrics/history", of.list, "listTaskHistory",
        "How your own tasks went, the last one first",
        answers=(Answer(200, "those that ended", task_answers.HistoryAnswer),),
        parameters=(requests.LIMIT,), errors=(400, 503),
    )  # fmt: skip


def _sessions(of: SessionHandlers) -> list[Operation]:
    page, lost = (sessions.LIMIT, sessions.OFFSET), (404, 503)
    return [
        Operation(
            "GET", SESSIONS, of.list, "listTaskSessions", "Your sessions, the last used first",
            answers=(Answer(200, "the sessions", task_answers.SessionsAnswer),), parameters=page, errors=(400, 503),
        ),
        Operation(
            "GET", SESSIONS + "/active/list", of.active, "listActiveTaskSessions",
            "Your sessions with a task that has not ended",
            answers=(Answer(200, "their ids", task_answers.SessionIdsAnswer),), parameters=page, errors=(400, 503),
        ),
        Operation(
            "GET", SESSION, of.get, "getTaskSession", "Look at a session",
            answers=(Answer(200, "the session", task_answers.SessionAnswer),), errors=lost,
        ),
        Operation(
            "DELETE", SESSION, of.delete, "deleteTaskSession", "Delete a session: nothing continues it",
            answers=(Answer(200, "it is gone", task_answers.SessionDeletedAnswer),), errors=(409, *lost),
        ),
        Operation(
            "POST", "/cache/clear", of.clear, "clearThreadCache",
            "Testbase's: does nothing here, where threads lie in records and in workspaces",
            answers=(Answer(200, "that it is done", task_answers.ClearedAnswer),), errors=(503,),
        ),
    ]  # fmt: skip
