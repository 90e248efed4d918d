"""What is told of tasks and sessions: the answer of `/execute`, the object of `/tasks`, and the schemas of both.

Amounts are Decimals, written digit by digit.
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from atoll.domain.ledger import InsufficientCredit
from atoll.domain.money import usd
from atoll.domain.refusals import Refusal, refusal_of
from atoll.domain.task import Task, TaskEnd, TaskState, Thread
from atoll.services.tasks.money import TaskUsage
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.testbase.errors import TestbaseFieldError, refused_for_money

FAILED = "Task execution failed"
Json = dict[str, Any]


class TokensAnswer(AnswerModel):
    inputTokens: int
    outputTokens: int
    totalTokens: int
    totalCost: float


class BalanceAnswer(AnswerModel):
    balanceAfter: float
    totalSpent: float


class ExecutedAnswer(AnswerModel):
    output: str
    sessionId: str
    workspaceId: str
    taskId: str
    usage: TokensAnswer | None = None
    billing: BalanceAnswer | None = None


class TaskAnswer(AnswerModel):
    taskId: str
    state: Literal["queued", "running", "ending", "succeeded", "failed", "cancelled"]
    reason: str | None
    task: str
    output: str
    error: str | None
    sessionId: str
    workspaceId: str
    agent: str
    model: str | None
    createdAt: datetime
    startedAt: datetime | None
    endedAt: datetime | None
    code: str | None = None
    details: dict[str, Any] | None = None
    usage: TokensAnswer | None = None
    billing: BalanceAnswer | None = None


class TasksAnswer(AnswerModel):
    count: int
    tasks: list[TaskAnswer]


class SessionAnswer(AnswerModel):
    sessionId: str
    threadId: str
    workspaceId: str
    lastActivity: datetime
    taskCount: int
    created: datetime


class SessionsAnswer(AnswerModel):
    count: int
    sessions: list[SessionAnswer]


class SessionIdsAnswer(AnswerModel):
    count: int
    sessions: list[str]


class SessionDeletedAnswer(AnswerModel):
    success: Literal[True]
    sessionId: str


class HistoryEntry(AnswerModel):
    workspaceId: str
    sessionId: str
    startTime: datetime | None
    endTime: datetime
    duration: int | None
    success: bool
    error: str | None = None


class HistoryAnswer(AnswerModel):
    count: int
    history: list[HistoryEntry]


class ClearedAnswer(AnswerModel):
    success: Literal[True]
    message: str


class ExecuteError(AnswerModel):
    """An error of these routes. `errors` comes with 400; `details` with 402 and 429; the rest of a task that ran."""

    error: str
    message: str | None = None
    errors: list[TestbaseFieldError] | None = None
    details: dict[str, Any] | None = None
    taskId: str | None = None
    reason: str | None = None
    output: str | None = None
    sessionId: str | None = None
    workspaceId: str | None = None
    usage: TokensAnswer | None = None
    billing: BalanceAnswer | None = None


def told(task: Task, used: TaskUsage, workspace: str) -> Json:
    """A task, as every route tells of it; `workspace` is what its owner calls that."""
    return {
        "taskId": task.id,
        "state": task.state.value,
        "reason": None if task.end is None else task.end.value,
        "task": task.spec.prompt,
        "output": task.output,
        "error": task.error or None,
        "sessionId": task.thread,
        "workspaceId": workspace,
        "agent": task.spec.agent,
        "model": task.spec.model or None,
        "createdAt": task.created_at,
        "startedAt": task.started_at,
        "endedAt": task.ended_at,
    } | (_why_dry(task, used) | money(used))


def money(used: TaskUsage) -> Json:
    """`usage`, of tasks that used any tokens; `billing`, of those that somebody pays for."""
    tokens, account = used.tokens, used.account
    found: Json = {}
    if tokens.total:
        found["usage"] = {
            "inputTokens": tokens.input,
            "outputTokens": tokens.output,
            "totalTokens": tokens.total,
            "totalCost": usd(used.cost),
        }
    if account is not None:
        found["billing"] = {"balanceAfter": usd(account.balance), "totalSpent": usd(account.spent)}
    return found


def executed(task: Task, used: TaskUsage, workspace: str) -> tuple[int, Json]:
    """The status and body of `/execute`, of a task that has ended."""
    told = {"output": task.output, "sessionId": task.thread, "workspaceId": workspace, "taskId": task.id}
    if task.state is TaskState.SUCCEEDED:
        return HTTPStatus.OK, told | money(used)
    more = told | {"reason": None if task.end is None else task.end.value} | money(used)
    if task.end is TaskEnd.OUT_OF_CREDIT:
        status, body = refused_for_money(_ran_dry(task, used))
        return status, body | more
    message = task.error or ("the task was cancelled" if task.end is TaskEnd.CANCELLED else "the agent failed")
    return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": FAILED, "message": message} | more


def session(thread: Thread, workspace: str) -> Json:
    return {
        "sessionId": thread.id,
        "threadId": thread.told_as or thread.id,
        "workspaceId": workspace,
        "lastActivity": thread.last_at,
        "taskCount": thread.tasks,
        "created": thread.created_at,
    }


def _why_dry(task: Task, used: TaskUsage) -> Json:
    if task.end is not TaskEnd.OUT_OF_CREDIT:
        return {}
    refusal = _ran_dry(task, used)
    return {"code": refusal.code, "details": refused_for_money(refusal)[1]["details"]}


def _ran_dry(task: Task, used: TaskUsage) -> Refusal:
    """What it ended for, as the ledger said it then."""
    if task.refused:
        return refusal_of(task.refused)
    balance, spent = (0, 0) if used.account is None else (used.account.balance, used.account.spent)
    return InsufficientCredit(task.error or None, balance=balance, spent=spent)
