"""Requests for tasks: what is asked for, and the rules about it; `Tasks.submit` checks here first."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from atoll.domain.errors import InvalidInput
from atoll.domain.sandbox import NetworkMode, Resources
from atoll.domain.task import McpServer

BUDGET_MAX = 2**53
COMMAND = "command"  # the agent that is a program of the request
NETWORKS = ("", NetworkMode.NONE.value, NetworkMode.OUTGOING.value)


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What somebody wants done. `session` is a thread's id; None begins one."""

    prompt: str
    workspace: str  # a name or an id; made on demand where it is a name that nobody has
    session: str | None = None
    agent: str = ""  # empty: as the settings say
    model: str = ""
    mcp_servers: tuple[McpServer, ...] = ()
    instructions: str = ""
    command: tuple[str, ...] = ()
    budget_micro_usd: int | None = None
    timeout_s: float | None = None
    network: str = ""


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Every bound and deadline of tasks; filled from the settings."""

    agent: str = "codex"  # of tasks that name none
    resources: Resources = field(default_factory=Resources)
    network: NetworkMode = NetworkMode.OUTGOING  # where the host can
    timeout_s: float = 600.0
    timeout_s_max: float = 24 * 3600.0
    sandbox_timeout_s_max: float | None = None  # of any sandbox
    stop_s: float = 10.0  # between TERM and KILL
    tasks_max: int = 32  # at once, in this server
    tasks_per_owner: int = 8
    waiting_max: int = 1_000  # in this server
    unended_per_owner: int = 200  # that wait or run
    prompt_chars_max: int = 100_000
    instructions_chars_max: int = 100_000
    model_chars_max: int = 200
    mcp_servers_max: int = 32
    texts_max: int = 256  # of one command, or of one tool server's
    text_chars_max: int = 8_192
    line_bytes_max: int = 2**20  # a longer line of an agent's output is taken for several
    output_chars_max: int = 2**20
    error_chars_max: int = 8_192
    events_max: int = 10_000  # of one task; the last ones tell that there were more
    events_bytes_max: int = 16 * 2**20
    event_chars_max: int = 256 * 2**10  # of one text in one event
    lease_s: float = 30.0  # a server that says nothing for so long has lost its tasks to others
    call_s: float = 30.0
    settle_s: float = 5.0  # for the charges of model calls that a task's end has cut
    drain_s: float = 5.0  # for the rest of the output of an agent that was ended
    revise_s: float = 600.0
    kept_s: float = 90 * 24 * 3600.0
    close_s: float = 5.0


def check_request(request: TaskRequest, limits: TaskLimits, agents: Collection[str]) -> None:
    """InvalidInput that names the field."""
    if not request.prompt:
        raise _bad("task", "must not be empty")
    _text("task", request.prompt, limits.prompt_chars_max)
    _text("instructions", request.instructions, limits.instructions_chars_max)
    _text("model", request.model, limits.model_chars_max)
    if request.agent and request.agent not in agents:
        raise _bad("agent", f"must be one of {', '.join(sorted(agents))}")
    agent = request.agent or limits.agent
    if request.command and agent != COMMAND:
        raise _bad("command", f"must be absent for {agent}: only the agent `{COMMAND}` takes one")
    if request.network not in NETWORKS:
        raise _bad("network", "must be none or outgoing")
    if len(request.command) > limits.texts_max:
        raise _bad("command", f"must be at most {limits.texts_max} arguments")
    for argument in request.command:
        _text("command", argument, limits.text_chars_max)
    if request.timeout_s is not None and not (
        math.isfinite(request.timeout_s) and 1 <= request.timeout_s <= limits.timeout_s_max
    ):
        raise _bad("timeout", f"must be within 1..{limits.timeout_s_max:g} s")
    if request.budget_micro_usd is not None and not 0 < request.budget_micro_usd <= BUDGET_MAX:
        raise _bad("budget", "must be above 0")
    _servers(request.mcp_servers, limits)


def _servers(servers: tuple[McpServer, ...], limits: TaskLimits) -> None:
    if len(servers) > limits.mcp_servers_max:
        raise _bad("mcpServers", f"must be at most {limits.mcp_servers_max}")
    if len({one.name for one in servers}) != len(servers):
        raise _bad("mcpServers", "must have names of their own")
    for one in servers:
        if not one.name or bool(one.command) == bool(one.url):
            raise _bad("mcpServers", "each has a name, and either a command or a url")
        if len(one.command) > limits.texts_max:
            raise _bad("mcpServers", f"must have at most {limits.texts_max} arguments each")
        for text in (one.name, one.url, *one.command):
            _text("mcpServers", text, limits.text_chars_max)


def _text(field: str, text: str, chars_max: int) -> None:
    if len(text) > chars_max:
        raise _bad(field, f"must be at most {chars_max} characters")
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise _bad(field, "must be valid Unicode without NUL")


def _bad(field: str, rule: str) -> InvalidInput:
    return InvalidInput(f"{field} {rule}", field=field)
