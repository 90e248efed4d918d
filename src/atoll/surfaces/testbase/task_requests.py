"""What clients of `/execute` and `/tasks` send: the body checked field by field, and the query parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from atoll.domain.errors import InvalidInput
from atoll.domain.task import McpServer, TaskState
from atoll.services.tasks.requests import TaskRequest
from atoll.surfaces.models import BodyModel
from atoll.surfaces.money import JsonAmount, amount_of
from atoll.surfaces.operation import Parameter

TASK_CHARS_MAX = 100_000
ID_PATTERN = r"^[a-zA-Z0-9_-]{1,128}$"
TIMEOUT_S_MAX = 7 * 24 * 3600.0  # what a task may take is for the service to say

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
OptionalId = Annotated[str, StringConstraints(pattern=r"^([a-zA-Z0-9_-]{1,128})?$")]
Word = Annotated[str, StringConstraints(max_length=4096)]
Words = Annotated[list[Word], Field(max_length=256)]
McpName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]

LIMIT = Parameter("limit", "at most so many, the newest; default: 100", int, minimum=1, maximum=1_000)
OFFSET = Parameter("offset", "after so many", int, minimum=0, maximum=10**9)
STATE = Parameter("state", "only those in this state", choices=tuple(state.value for state in TaskState))
SESSION = Parameter("sessionId", "only those of this session", max_chars=128)
AFTER = Parameter("after", "only events after this one; `Last-Event-ID` says the same", int, minimum=0, maximum=2**53)


class StdioServer(BodyModel):
    """A tool server that is a program in the sandbox."""

    name: McpName
    type: Literal["stdio"]
    command: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    args: Words = Field(default_factory=list[str])


class HttpServer(BodyModel):
    """A tool server that is reached by HTTP, from inside the sandbox."""

    name: McpName
    type: Literal["http"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)]


class ExecuteBody(BodyModel):
    """POST /execute. The first four fields are Testbase's, the others Atoll's."""

    task: Annotated[str, StringConstraints(min_length=1, max_length=TASK_CHARS_MAX)]
    workspaceId: Id
    sessionId: OptionalId | None = Field(None, description="absent or empty: a new one")
    mcpServers: Annotated[
        list[Annotated[StdioServer | HttpServer, Field(discriminator="type")]], Field(max_length=16)
    ] = Field(default_factory=list[StdioServer | HttpServer])
    agent: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")] | None = None
    model: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{0,128}$")] | None = None
    instructions: Annotated[str, StringConstraints(max_length=TASK_CHARS_MAX)] | None = None
    command: Words | None = Field(None, description="of the agent `command`: the program and its arguments")
    budget: JsonAmount = Field(None, description="dollars that the task may spend at most")
    timeout: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] | None = Field(None, description="seconds")
    network: Literal["none", "outgoing"] | None = None
    wait: bool = Field(True, description="false: answer at once, with 202 and the task")
    asynchronous: bool = Field(False, alias="async", description="true: as `wait: false`")

    @property
    def waits(self) -> bool:
        return self.wait and not self.asynchronous

    def request(self) -> TaskRequest:
        """What the service takes. InvalidInput for the budget."""
        return TaskRequest(
            prompt=self.task,
            workspace=self.workspaceId,
            session=self.sessionId or None,
            agent=self.agent or "",
            model=self.model or "",
            mcp_servers=tuple(map(_server, self.mcpServers)),
            instructions=self.instructions or "",
            command=tuple(self.command or ()),
            budget_micro_usd=_budget(self.budget),
            timeout_s=self.timeout,
            network=self.network or "",
        )


def _server(one: StdioServer | HttpServer) -> McpServer:
    if isinstance(one, HttpServer):
        return McpServer(one.name, url=one.url)
    return McpServer(one.name, command=(one.command, *one.args))


def _budget(value: object) -> int | None:
    if value is None:
        return None
    amount = amount_of(value, field="budget")
    if amount is None or amount <= 0:
        raise InvalidInput("budget must be a number of dollars above 0", field="budget")
    return amount
