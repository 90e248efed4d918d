"""The sidekick API of each sandbox: commands, code, files, terminals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import Route

SANDBOX = {"id": "sandbox"}
FILE = {**SANDBOX, "path": "//tmp/a"}
TERMINAL = {**SANDBOX, "terminal": "/run"}
COMMAND = {**TERMINAL, "cmd": "command"}

ROUTES: dict[str, Route] = {
    "daemonEvents": Route("read", SANDBOX),
    "daemonRunCommand": Route("execute", SANDBOX, body={"command": "touch /tmp/did"}),
    "daemonExecute": Route("execute", SANDBOX, body={"command": "touch /tmp/did"}),
    "daemonRunCode": Route("execute", SANDBOX, body={"code": "touch /tmp/did", "language": "sh"}),
    "daemonRunInTerminal": Route("execute", TERMINAL, body={"command": "touch /tmp/did"}),
    "daemonListCommands": Route("read", TERMINAL),
    "daemonGetCommand": Route("read", COMMAND),
    "daemonWaitForCommand": Route("read", COMMAND, query="timeout=1"),
    "daemonListFiles": Route("read", SANDBOX, query="path=/tmp"),
    "daemonWriteFile": Route("write", SANDBOX, body={"path": "/tmp/b", "content": "c"}),
    "daemonChangeFiles": Route("write", SANDBOX, body={"files": [{"path": "/tmp/b", "operation": "write"}]}),
    "daemonReadFile": Route("read", FILE, query="content=true"),
    "daemonFileExists": Route("read", FILE),
    "daemonReplaceFile": Route("write", FILE, body={"content": "c"}),
    "daemonRemoveFile": Route("write", FILE),
    "daemonCreateTerminal": Route("execute", SANDBOX, body={"pty": True}),
    "daemonListTerminals": Route("read", SANDBOX),
    "daemonGetTerminal": Route("read", TERMINAL),
    "daemonCloseTerminal": Route("execute", {**SANDBOX, "terminal": "terminal"}),
}


async def command(house: Any, tenant: Any) -> dict[str, str]:
    """One that has run, and a shell."""
    from tests.security.things import post

    path = f"/sb/{tenant.has['sandbox']}"
    ran = await post(house, tenant, f"{path}/run/command", {"command": "true"})
    shell = await post(house, tenant, f"{path}/terminals", {"pty": True})
    return {"command": ran["data"]["cmd_id"], "terminal": shell["data"]["id"]}


PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = (command,)  # of things: see things.py
NOBODYS: dict[str, str] = {"command": "cmd_" + "5" * 16, "terminal": "pty_" + "5" * 16}  # and nobody's
BESIDE: dict[str, str] = {  # see effects.py
    "daemonRunCommand": "process.started",
    "daemonExecute": "process.started",
    "daemonRunCode": "process.started",
    "daemonRunInTerminal": "process.started",
    "daemonCreateTerminal": "process.started",
    "daemonCloseTerminal": "process.signalled",
    "daemonWriteFile": "file.written",
    "daemonReplaceFile": "file.written",
    "daemonChangeFiles": "file.written",
    "daemonRemoveFile": "file.removed",
}
CALLS: list[tuple[str, set[str]]] = [
    ("daemonRemoveFile", {"file.removed"}),
    ("daemonReplaceFile", {"file.written"}),  # there again, for what removes it next
]
UNCHANGED: set[str] = set()
