"""The Sandbox API of the Cloud Terminal Platform."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.security.route import Route

SANDBOX = {"id": "sandbox"}
HERE = Path(__file__).resolve().parents[1]  # which test_tenancy.py lets sandboxes mount

ROUTES: dict[str, Route] = {
    "createHomeSandbox": Route("execute", body={"sandbox_config": {"network": "none"}}),
    "deleteHomeSandbox": Route("execute", SANDBOX),
    "execInHomeSandbox": Route("execute", SANDBOX, body={"command": "touch", "args": ["/tmp/did"]}),
    "previewHomeSandbox": Route("execute", SANDBOX, body={"port": 80}),
    "keepHomeSandboxAlive": Route("execute", SANDBOX),
    "mountInHomeSandbox": Route("execute", SANDBOX, body={"alias": "data", "target": str(HERE / "parts")}),
    "writeHomeFile": Route("write", SANDBOX, body={"path": "a", "data": "text"}),
    "listHomeFiles": Route("read", SANDBOX),
    "readHomeFile": Route("read", SANDBOX | {"path": "/a"}),
    "startJob": Route("execute", SANDBOX, body={"command": "true"}),
    "listJobs": Route("read", SANDBOX),
    "stopJob": Route("execute", SANDBOX | {"job": "job"}),
    "openTerminal": Route("execute", SANDBOX),
    "createTerminalToken": Route("execute", SANDBOX),
    "openComputeTerminal": Route("execute", {"id": "compute"}),
}
PARAMETERS: dict[str, str] = {}  # what stands in paths, where a line does not say otherwise


async def job(house: Any, tenant: Any) -> dict[str, str]:
    path = f"/sandboxes/{tenant.has['sandbox']}/background"
    made = await house.call("POST", path, tenant.key, json={"command": "sleep 9"})
    assert made.status_code == 200, made.text
    return {"job": made.json()["job_id"]}


MAKERS: tuple[Callable[[Any, Any], Awaitable[dict[str, str]]], ...] = (job,)  # of things: see things.py
NOBODYS: dict[str, str] = {"job": "5" * 32}  # of the same form, and nobody's
BESIDE: dict[str, str] = {
    "execInHomeSandbox": "process.started",
    "mountInHomeSandbox": "sandbox.mounted",
    "writeHomeFile": "file.written",
    "startJob": "job.started",
    "stopJob": "job.stopped",
    "openTerminal": "process.started",
    "openComputeTerminal": "process.started",
}
CALLS: list[tuple[str, set[str]]] = [
    ("writeHomeFile", {"file.written"}),
    ("mountInHomeSandbox", {"sandbox.mounted"}),
    ("stopJob", {"job.stopped"}),
]
UNCHANGED: set[str] = set()
