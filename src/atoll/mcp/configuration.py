"""How agents are told of this server, as `atoll mcp --print-config` shows it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

KEY_VARIABLE = "ATOLL_API_KEY"
CLIENTS = ("claude", "codex", "json")


def configuration(
    client: str, *, command: str, env: Mapping[str, str], needs_key: bool, http: str | None = None
) -> str:
    """What to run or to write down for that client: `claude` (Claude Code), `codex`, `json` (most others).

    `command` is the atoll program, `env` the variables that it gets, `http` the address of a server over HTTP, if that
    is meant. No text of a key stands in it: with `needs_key`, and over HTTP, it is read from the environment.
    """
    made = {"claude": _claude, "codex": _codex, "json": _json}[client]
    return made(command, env, needs_key, http)


def _claude(command: str, env: Mapping[str, str], needs_key: bool, http: str | None) -> str:
    if http is not None:
        header = f'--header "Authorization: Bearer ${KEY_VARIABLE}"'
        return f"claude mcp add --transport http atoll {http} {header}\n"
    given = [f"--env {name}={shlex.quote(value)}" for name, value in env.items()]
    given += [f'--env {KEY_VARIABLE}="${KEY_VARIABLE}"'] if needs_key else []
    return f"claude mcp add atoll {' '.join(given)} -- {command} mcp\n"


def _codex(command: str, env: Mapping[str, str], needs_key: bool, http: str | None) -> str:
    """Lines for ~/.codex/config.toml."""
    lines = ["[mcp_servers.atoll]"]
    if http is not None:
        lines += [f"url = {json.dumps(http)}", f"bearer_token_env_var = {json.dumps(KEY_VARIABLE)}"]
    else:
        given = ", ".join(f"{name} = {json.dumps(value)}" for name, value in env.items())
        lines += [f"command = {json.dumps(command)}", 'args = ["mcp"]', f"env = {{ {given} }}"]
        lines += [f"env_vars = [{json.dumps(KEY_VARIABLE)}]"] if needs_key else []
    lines += ["required = true # else the first turn may begin before the tools are there"]
    lines += ["startup_timeout_sec = 30", "tool_timeout_sec = 600"]
    lines += ['default_tools_approval_mode = "approve" # what they do, they do in a sandbox; "prompt": you are asked']
    return "\n".join([*lines, ""])


def _json(command: str, env: Mapping[str, str], needs_key: bool, http: str | None) -> str:
    """The `mcpServers` that most clients read."""
    variable = f"${{{KEY_VARIABLE}}}"
    if http is not None:
        own: dict[str, object] = {"type": "http", "url": http, "headers": {"Authorization": f"Bearer {variable}"}}
    else:
        own = {"command": command, "args": ["mcp"], "env": {**env, **({KEY_VARIABLE: variable} if needs_key else {})}}
    return json.dumps({"mcpServers": {"atoll": own}}, indent=2) + "\n"
