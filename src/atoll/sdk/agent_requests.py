"""What an agent is asked with: its arguments checked, its folder's workspace named, the body of `POST /execute` made.

Agents of both kinds use it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from secrets import token_hex
from time import time_ns
from typing import Any, Protocol, cast, runtime_checkable

from atoll.domain.errors import InvalidInput
from atoll.domain.money import micro_usd, usd
from atoll.domain.task import McpServer
from atoll.sdk.arguments import mapping, millis, several, text, texts

PREFIX = "ws:"  # before a workspace's name, where a folder's could stand
_MCP = "a list of {'name', 'type': 'stdio', 'command', 'args'} or {'name', 'type': 'http', 'url'}"
_WORKSPACE = "a folder, ws:NAME or a Workspace"
_NETWORKS = ("none", "outgoing")
_NAME_CHARS_MAX = 100
_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")

Money = Decimal | int | str | float


@runtime_checkable
class HasId(Protocol):
    """A Workspace or AsyncWorkspace, as far as an agent needs it."""

    @property
    def id(self) -> str: ...


WorkspaceLike = str | os.PathLike[str] | HasId


@dataclass(frozen=True, slots=True)
class Where:
    """The workspace that an agent works on, and the folder of this machine that is synced with it, if any."""

    workspace: str
    folder: str | None


def where_of(workspace: WorkspaceLike | None, *, skip_sync: bool) -> Where:
    """A folder is synced with a workspace that is named after it. `ws:NAME`, a Workspace, or with `skip_sync` any id:
    the server's copy alone. None: a new one, on the server alone."""
    if workspace is None:
        return Where(f"cloud-{time_ns() // 1_000_000}-{token_hex(4)[:7]}", None)
    if isinstance(workspace, (str, os.PathLike)):
        return _path(os.fspath(workspace), skip_sync=skip_sync)
    named: object = getattr(cast("object", workspace), "id", None)
    if not isinstance(named, str):
        raise InvalidInput(f"workspace must be {_WORKSPACE}, not {workspace!r}", field="workspace")
    return Where(named, None)


def _path(path: object, *, skip_sync: bool) -> Where:
    if not isinstance(path, str) or not path:
        raise InvalidInput(f"workspace must be {_WORKSPACE}, not {path!r}", field="workspace")
    if path.startswith(PREFIX):
        return Where(path.removeprefix(PREFIX), None)
    if skip_sync:
        return Where(path if _ID.fullmatch(path) else workspace_id(path), None)
    if not os.path.isdir(path):
        why = "does not exist: make the folder first, or name one on the server: ws:NAME"
        if os.path.lexists(path):
            why = "is not a folder"
        raise InvalidInput(f"workspace: {path} {why}", field="workspace")
    return Where(workspace_id(path), os.path.abspath(path))


def workspace_id(folder: str | os.PathLike[str]) -> str:
    """The name of a folder's workspace: its own name, then 16 hex digits of its absolute path, as Testbase's client
    has it. A folder that moves is another one."""
    path = os.path.abspath(folder)
    digits = sha256(os.fsencode(path)).hexdigest()[:16]
    name = re.sub(r"[^a-z0-9]+", "-", os.path.basename(path).lower()).strip("-")[:_NAME_CHARS_MAX]
    return f"{name or 'folder'}-{digits}"


def excluded(folder: str) -> tuple[str, ...]:
    """What of a folder never travels: the `.git` that the server makes where the folder has none, and one that is a
    file, which names a place outside."""
    return () if os.path.isdir(os.path.join(folder, ".git")) else ("/.git",)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """The arguments of an Agent, checked. InvalidInput names what is wrong."""

    agent_type: str = "computer"
    agent: str | None = None
    model: str | None = None
    instructions: str | None = None
    mcp_servers: Sequence[McpServer | Mapping[str, Any]] | None = None
    command: str | Sequence[str] | None = None
    network: str | None = None

    def __post_init__(self) -> None:
        if self.agent_type != "computer":
            raise InvalidInput(f"agent_type must be computer, not {self.agent_type!r}", field="agent_type")
        text(self.agent, "agent", "the name of an agent, such as codex")
        text(self.model, "model", "a model's name")
        text(self.instructions, "instructions", "a string")
        if text(self.network, "network", "none or outgoing") not in (None, *_NETWORKS):
            raise InvalidInput(f"network must be none or outgoing, not {self.network!r}", field="network")
        self.servers()
        if self.words() is not None and self.agent not in (None, "command"):
            raise InvalidInput(
                f"command must be absent for {self.agent}: only the agent `command` takes one", field="command"
            )

    def servers(self) -> list[dict[str, Any]]:
        return [_server(one) for one in several(self.mcp_servers, "mcp_servers", _MCP) or ()]

    def words(self) -> list[str] | None:
        """The program of the agent `command`; a string is for the shell."""
        if isinstance(self.command, str):
            return ["sh", "-c", self.command]
        return texts(self.command, "command", "a string for the shell or a list of words")

    def request(
        self, task: str, workspace: str, session: str | None, budget: Money | None, timeout: float | None
    ) -> dict[str, Any]:
        """The body of `POST /execute`."""
        if text(task, "task", "what to do, as a string") is None or not task.strip():
            raise InvalidInput("task must say what to do", field="task")
        words = self.words()
        limit_ms = millis(timeout, "timeout")
        body: dict[str, Any] = {
            "task": task,
            "workspaceId": workspace,
            "sessionId": text(session, "session_id", "a session's id") or None,
            "mcpServers": self.servers() or None,
            "agent": self.agent or ("command" if words else None),
            "model": self.model,
            "instructions": self.instructions,
            "command": words,
            "network": self.network,
            "budget": None if budget is None else _budget(budget),
            "timeout": None if limit_ms is None else limit_ms / 1000,
        }
        return {name: value for name, value in body.items() if value is not None}


def _budget(budget: Money) -> float:
    """Dollars; a JSON number of six decimals at most has a float that is written the same."""
    micro = micro_usd(str(budget) if isinstance(budget, float) else budget, field="budget")
    if micro <= 0:
        raise InvalidInput("budget must be a number of dollars above 0, such as 0.5", field="budget")
    return float(usd(micro))


def _server(one: object) -> dict[str, Any]:
    if isinstance(one, McpServer):
        if one.url:
            return {"name": one.name, "type": "http", "url": one.url}
        return {"name": one.name, "type": "stdio", "command": one.command[0], "args": list(one.command[1:])}
    if not isinstance(one, Mapping):
        raise InvalidInput(f"mcp_servers must be {_MCP}, not {one!r}", field="mcp_servers")
    said = mapping(cast("object", one), "mcp_servers", _MCP) or {}
    return {"type": "http" if "url" in said else "stdio", **said}
