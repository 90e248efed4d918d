"""How agents are told of this server, as `atoll mcp --print-config` shows it."""

from __future__ import annotations

import json

KEY_VARIABLE = "ATOLL_API_KEY"
CLIENTS = ("claude", "codex", "json")


def configuration(client: str, *, command: str, url: str, http: str | None = None) -> str:
    """What to run or to write down for that client: `claude` (Claude Code), `codex`, `json` (most others).

    `command` is the atoll program, `url` the API's address, `http` the address of a server over HTTP, if that is meant.
    No text of a key stands in it: it is read from the environment.
    """
    made = {"claude": _claude, "codex": _codex, "json": _json}[client]
    return made(command, url, http)


def _claude(command: str, url: str, http: str | None) -> str:
    if http is not None:
        header = f'--header "Authorization: Bearer ${KEY_VARIABLE}"'
        return f"claude mcp add --transport http atoll {http} {header}\n"
    return f'claude mcp add atoll --env ATOLL_URL={url} --env {KEY_VARIABLE}="${KEY_VARIABLE}" -- {command} mcp\n'


def _codex(command: str, url: str, http: str | None) -> str:
    """Lines for ~/.codex/config.toml."""
    lines = ["[mcp_servers.atoll]"]
    if http is not None:
        lines += [f"url = {json.dumps(http)}", f"bearer_token_env_var = {json.dumps(KEY_VARIABLE)}"]
    else:
        lines += [f"command = {json.dumps(command)}", 'args = ["mcp"]', f"env = {{ ATOLL_URL = {json.dumps(url)} }}"]
        lines += [f"env_vars = [{json.dumps(KEY_VARIABLE)}]"]
    lines += ["required = true # else the first turn may begin before the tools are there"]
    lines += ["startup_timeout_sec = 30", "tool_timeout_sec = 600"]
    lines += ['default_tools_approval_mode = "approve" # what they do, they do in a sandbox; "prompt": you are asked']
    return "\n".join([*lines, ""])


def _json(command: str, url: str, http: str | None) -> str:
    """The `mcpServers` that most clients read."""
    variable = f"${{{KEY_VARIABLE}}}"
    if http is not None:
        own: dict[str, object] = {"type": "http", "url": http, "headers": {"Authorization": f"Bearer {variable}"}}
    else:
        own = {"command": command, "args": ["mcp"], "env": {"ATOLL_URL": url, KEY_VARIABLE: variable}}
    return json.dumps({"mcpServers": {"atoll": own}}, indent=2) + "\n"
