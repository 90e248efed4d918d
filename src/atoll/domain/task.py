"""Task and thread: one run of an agent on a workspace, and the conversation that successive tasks continue.

`services/tasks` moves them through their states; the records keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from atoll.domain.errors import Conflict
from atoll.domain.key import KeyKind
from atoll.domain.price import NO_TOKENS, TokenUse


class TaskState(StrEnum):
    """QUEUED waits for its turn, RUNNING has (or is about to have) a sandbox, ENDING saves the work."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDING = "ending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskEnd(StrEnum):
    """Why a task ended as it did; the API's `reason`."""

    DONE = "done"
    AGENT_FAILED = "agent_failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OUT_OF_CREDIT = "insufficient_credit"  # the balance, a limit or a budget: a 402 or 429 with its output
    LOST = "lost"  # its sandbox ended under it
    FAULT = "fault"  # it could not be started


ENDED = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset({TaskState.RUNNING, TaskState.CANCELLED, TaskState.FAILED}),
    TaskState.RUNNING: frozenset({TaskState.ENDING, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.ENDING: frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.SUCCEEDED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class McpServer:
    """A tool server of the request: a program inside the sandbox (`command`), or an HTTP endpoint (`url`)."""

    name: str
    command: tuple[str, ...] = ()  # with its arguments; empty: `url`
    url: str = ""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What is asked for. `thread` None starts a new one."""

    prompt: str
    workspace: str  # the resolved id
    agent: str = "codex"
    model: str = ""  # empty: the agent's own default, or the settings'
    thread: str | None = None
    instructions: str = ""
    mcp_servers: tuple[McpServer, ...] = ()
    command: tuple[str, ...] = ()  # of the agent `command`: the program, which gets the prompt on stdin
    budget_micro_usd: int | None = None
    timeout_s: float | None = None
    network: str = ""  # none, outgoing; empty: as the settings say, where the host can


@dataclass(frozen=True, slots=True)
class Task:
    """The record of one task."""

    id: str  # task_ and 24 hex digits
    owner: str  # who pays, and whose it is
    credential: str
    spec: TaskSpec
    thread: str
    created_at: datetime
    state: TaskState = TaskState.QUEUED
    end: TaskEnd | None = None
    output: str = ""  # the agent's last message, or what a command wrote
    error: str = ""
    sandbox: str | None = None
    process: str | None = None
    read_offset: int = 0  # of the agent's output: what lies before it is in the events
    tokens: TokenUse = NO_TOKENS
    cost: int = 0  # micro-dollars; of internal keys too
    internal: bool = False
    lineage: tuple[str, ...] = ()  # the keys whose budgets bound it
    kind: KeyKind = KeyKind.STANDARD  # of the credential, like the next: whose quotas hold when its turn comes
    plan: str = ""
    refused: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)  # why it ran dry (refusals.py)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    claimed_by: str = ""  # the server process that runs it ...
    claimed_until: datetime | None = None  # ... until then, unless it says so again
    cancel_asked: bool = False
    version: int = 1

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def to(self, state: TaskState, **changes: Any) -> Task:
        """The task in its next state; Conflict when `TRANSITIONS` does not allow that step."""
        if state not in TRANSITIONS[self.state]:
            raise Conflict(f"task {self.id} is {self.state}: it cannot become {state}")
        now = datetime.now(UTC)
        if state is TaskState.RUNNING:
            changes.setdefault("started_at", now)
        if state in ENDED:
            changes.setdefault("ended_at", now)
        return replace(self, state=state, **changes)


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation: Testbase's session. What the agent remembers of it lies in the workspace."""

    id: str  # thread_ and 24 hex digits; what clients call `sessionId`
    owner: str
    workspace: str
    agent: str
    created_at: datetime
    last_at: datetime
    tasks: int = 0
    agent_thread: str = ""  # the agent's own id of it; empty until the agent told one
    deleted_at: datetime | None = None
    version: int = 1

    @property
    def told_as(self) -> str:
        """What clients are told of the agent's own id: without what its adapter keeps with it, behind a `#`."""
        return self.agent_thread.partition("#")[0]


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened in a task; `seq` counts from 1 without gaps. `type` is one of

    task.started, message.delta {text}, message {text}, reasoning {text}, command {command, output, exit_code, status},
    file_change {changes: [{path, kind}]}, tool_call {server, tool, status, ...}, plan {items}, usage {inputTokens,
    outputTokens, cachedInputTokens, costMicroUsd}, warning {message, ...}, error {message}, output {text} (of a plain
    command), task.ended {state, reason, ...}.
    """

    seq: int
    type: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
