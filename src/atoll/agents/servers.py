"""Tool servers of a task, as the configuration files of agents take them; every adapter asks for them here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from atoll.domain.errors import InvalidInput
from atoll.domain.task import TaskSpec

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def mcp_servers_of(spec: TaskSpec) -> dict[str, dict[str, Any]]:
    """By their names, in the order of the request: {command, args} of a program, {url} of one that is reached by HTTP.
    InvalidInput for a name that would be more than a name, and for one that comes twice."""
    made: dict[str, dict[str, Any]] = {}
    for number, server in enumerate(spec.mcp_servers):
        field = f"mcpServers.{number}.name"
        if not _NAME.fullmatch(server.name):
            message = f"{field} must be at most 64 letters, digits, - and _, not {server.name!r}"
            raise InvalidInput(message, field=field)
        if server.name in made:
            raise InvalidInput(f"{field} must be unlike the others: {server.name!r} comes twice", field=field)
        if server.command:
            made[server.name] = {"command": server.command[0], "args": list(server.command[1:])}
        else:
            made[server.name] = {"url": server.url}
    return made


def mcp_file(spec: TaskSpec) -> Mapping[str, Any]:
    """The same as most programs have them in a file."""
    servers = mcp_servers_of(spec)
    return {"mcpServers": {name: {"type": "http" if "url" in one else "stdio"} | one for name, one in servers.items()}}
