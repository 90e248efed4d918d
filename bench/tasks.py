"""What a task costs around its agent's own run, and what an event of it takes from the program to who follows."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from atoll import Workspace
from bench import trees
from bench.figures import Report
from bench.running import milliseconds
from bench.server import Server

# a line every 10 ms with the moment at which it was written, by the clock that both sides have
TELLING = "import time\nfor _ in range({count}):\n    print(time.time_ns(), flush=True)\n    time.sleep(0.01)\n"
WARM = 3


def tasks(report: Report, up: Server, n: int) -> None:
    """`true` as the agent, on a workspace that does not change; then one that tells the time."""
    shape = trees.SEED_SIZES[-1]
    name = f"bench-{uuid4().hex[:8]}"
    workspace = Workspace.create(name)
    try:
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder:
            trees.make(Path(folder), shape)
            workspace.push(Path(folder))
        with httpx2.Client(base_url=up.url, headers={"Authorization": f"Bearer {up.api_key}"}, timeout=60) as client:
            _overhead(report, client, name, str(shape), n)
            _events(report, client, name, 2 * n)
    finally:
        workspace.delete()


def _overhead(report: Report, client: httpx2.Client, workspace: str, label: str, n: int) -> None:
    body = {"task": "nothing", "workspaceId": workspace, "agent": "command", "command": ["true"]}

    def execute() -> None:
        answer = client.post("/execute", json=body)
        answer.raise_for_status()

    times = [milliseconds(execute) for _ in range(n + WARM)][WARM:]
    report.times("task", f"/execute of `true`, {label} unchanged", times, goal="<= 150 ms")


def _events(report: Report, client: httpx2.Client, workspace: str, count: int) -> None:
    command = ["python3", "-u", "-c", TELLING.format(count=count)]
    body: dict[str, Any] = {"task": "tell", "workspaceId": workspace, "agent": "command", "command": command}
    late: list[float] = []
    with client.stream("POST", "/execute", json=body, headers={"Accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data:") and '"output"' in line:
                event = json.loads(line.removeprefix("data:"))
                if event["type"] == "output":
                    late += [(time.time_ns() - int(one)) / 1e6 for one in event["data"]["text"].split()]
    report.times("task.event", "... an event, from the program to who follows", late, goal="<= 3 ms")
