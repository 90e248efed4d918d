"""What calls about agents' tasks return: frozen values, read from the server's JSON here and nowhere else.

Amounts are Decimals in dollars, exactly as the server says them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from atoll.sdk.sync.values import SyncReport
from atoll.sdk.values import moment_of

Json = Mapping[str, Any]

ENDED = "task.ended"
SYNC = "sync"  # the SDK's own: a folder was brought together with its workspace
_OVER = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class TaskUsage:
    """The tokens of a task; `cached_input_tokens` are part of the input. `total_cost` is in dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    total_cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Billing:
    """The account after a task, in dollars."""

    balance_after: Decimal
    total_spent: Decimal


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened: `type` and `data` are as docs/agents-sdk.md lists them. `seq` counts the server's events
    from 1; the SDK's own have 0."""

    seq: int
    type: str
    data: Json = field(default_factory=dict[str, Any], hash=False)
    at: datetime | None = None

    @property
    def text(self) -> str:
        """What was said, of events that say something."""
        return str(self.data.get("text") or "")


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What the server says about a task at one moment. `state` is queued, running, ending, succeeded, failed or
    cancelled; `reason` says why it ended. `billing` is None for keys that are not charged."""

    id: str
    state: str = ""
    reason: str | None = None
    task: str = ""
    output: str = ""
    error: str = ""
    session_id: str | None = None
    workspace_id: str = ""
    agent: str = ""
    usage: TaskUsage = TaskUsage()
    billing: Billing | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)

    @property
    def ended(self) -> bool:
        return self.state in _OVER


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session: what successive tasks continue."""

    id: str
    workspace_id: str = ""
    tasks: int = 0
    created_at: datetime | None = None
    last_at: datetime | None = None
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class RunResult:
    """One task that has ended. `before` and `after` are None where nothing was synced."""

    final_output: str
    session_id: str | None
    workspace_id: str
    task_id: str
    state: str
    reason: str | None = None
    error: str = ""
    usage: TaskUsage = TaskUsage()
    billing: Billing | None = None
    events: tuple[RunEvent, ...] = field(default=(), repr=False)
    before: SyncReport | None = field(default=None, repr=False)
    after: SyncReport | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return self.state == "succeeded"


def task_of(value: Json) -> TaskInfo:
    """One object of `/tasks`, of `POST /execute`, or what the last event of a task says."""
    billing = value.get("billing")
    return TaskInfo(
        id=str(value.get("taskId") or value.get("id") or ""),
        state=str(value.get("state") or value.get("status") or ""),
        reason=_text_or_none(value.get("reason")),
        task=str(value.get("task") or value.get("prompt") or ""),
        output=str(value.get("output") or ""),
        error=_error(value),
        session_id=_text_or_none(value.get("sessionId")),
        workspace_id=str(value.get("workspaceId") or ""),
        agent=str(value.get("agent") or ""),
        usage=usage_of(value.get("usage")),
        billing=_billing(cast("Json", billing)) if isinstance(billing, Mapping) else None,
        created_at=moment_of(value.get("createdAt")),
        started_at=moment_of(value.get("startedAt")),
        ended_at=moment_of(value.get("endedAt")),
        raw=value,
    )


def usage_of(value: object) -> TaskUsage:
    """`usage` of an answer, or the data of an event of that type."""
    if not isinstance(value, Mapping):
        return TaskUsage()
    said = cast("Json", value)
    given, made = int(said.get("inputTokens") or 0), int(said.get("outputTokens") or 0)
    micro = said.get("costMicroUsd")
    return TaskUsage(
        input_tokens=given,
        output_tokens=made,
        total_tokens=int(said.get("totalTokens") or given + made),
        cached_input_tokens=int(said.get("cachedInputTokens") or 0),
        total_cost=dollars(said.get("totalCost")) if micro is None else Decimal(int(micro)) / 1_000_000,
    )


def event_of(seq: int, kind: str, value: object) -> RunEvent:
    """One event of a stream. Its data is either the event's own, or wrapped as `{seq, type, at, data}`."""
    said: Json = cast("Json", value) if isinstance(value, Mapping) else {}
    inner: object = said.get("data")
    if isinstance(inner, Mapping) and ("seq" in said or "type" in said):
        seq = int(said.get("seq") or seq)
        return RunEvent(seq, str(said.get("type") or kind), cast("Json", inner), moment_of(said.get("at")))
    return RunEvent(seq, kind, said, moment_of(said.get("at")))


def session_of(value: Json) -> SessionInfo:
    """One object of `/sessions`."""
    return SessionInfo(
        id=str(value.get("sessionId") or ""),
        workspace_id=str(value.get("workspaceId") or ""),
        tasks=int(value.get("taskCount") or 0),
        created_at=moment_of(value.get("created")),
        last_at=moment_of(value.get("lastActivity")),
        raw=value,
    )


def dollars(value: object) -> Decimal:
    """An amount of an answer, without a float's errors: JSON gives 0.10308 as a float whose shortest text it is."""
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return Decimal(0)
    return Decimal(str(value))


def _billing(value: Json) -> Billing:
    return Billing(dollars(value.get("balanceAfter")), dollars(value.get("totalSpent")))


def _error(value: Json) -> str:
    """Testbase's `{error: a title, message: a sentence}`, or a sentence alone."""
    return str(value.get("message") or value.get("error") or "")


def _text_or_none(value: object) -> str | None:
    return str(value) if value else None
