"""The sandbox protocol of the Agents SDK."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.security.route import Route

SANDBOX = {"id": "sandbox"}
FILE = {"id": "sandbox", "path": "/tmp/a"}

ROUTES: dict[str, Route] = {
    "agentsCreateSandbox": Route("execute", body={"network": "none"}),
    "agentsDeleteSandbox": Route("execute", SANDBOX),
    "agentsRunning": Route("read", SANDBOX),
    "agentsMount": Route("read execute", SANDBOX, body={"bucket": "b", "mountPath": "/workspace/b"}),
    "agentsUnmount": Route("read execute", SANDBOX, body={"mountPath": "/workspace/b"}),
    "agentsExec": Route("execute", SANDBOX, body={"argv": ["touch", "/tmp/did"]}),
    "agentsTerminal": Route("execute", SANDBOX),
    "agentsReadFile": Route("read", FILE),
    "agentsWriteFile": Route("write", FILE, body=b"changed"),
    "agentsPersist": Route("read execute", SANDBOX),
    "agentsHydrate": Route("write execute", SANDBOX, body=bytes(10_240)),
}
PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise
MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = ()  # of things: see things.py
NOBODYS: dict[str, str] = {}  # of the same form, and nobody's
BESIDE: dict[str, str] = {  # see effects.py
    "agentsExec": "process.started",
    "agentsTerminal": "process.started",
    "agentsWriteFile": "file.written",
    "agentsHydrate": "file.written",
}
CALLS: list[tuple[str, set[str]]] = []
UNCHANGED = {"agentsDeleteSandbox"}  # of one that has ended, which its client does again on closing
