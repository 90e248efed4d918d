"""C01, C05: server, node, sidekick or agent is killed at any step of a task; its work is saved and it ends once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from atoll.domain.crash import POINTS
from tests.e2e.conftest import needs_root
from tests.e2e.machine import until
from tests.e2e.server import Server
from tests.faults.test_c01_crash_points import assert_whole, die_at

pytestmark = [pytest.mark.root, needs_root]

LINES = 12
SCRIPT = f"cat > task.txt; for n in $(seq {LINES}); do echo line $n; sleep 0.05; done"
OUTPUT = "".join(f"line {n}\n" for n in range(1, LINES + 1))


def submit(server: Server, workspace: str, script: str = SCRIPT) -> str:
    """A task that nobody waits for."""
    body = {"task": "words", "workspaceId": workspace, "agent": "command", "command": ["bash", "-c", script]}
    answer = server.http.post("/execute", json=body | {"wait": False, "network": "none"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["taskId"])


def task_of(server: Server, task: str) -> dict[str, Any]:
    return dict(server.http.get(f"/tasks/{task}").json())


def ended(server: Server, task: str) -> dict[str, Any]:
    until(lambda: task_of(server, task)["endedAt"], within_s=30, what="the task has ended")
    return task_of(server, task)


def told(server: Server, task: str) -> list[dict[str, Any]]:
    lines = server.http.get(f"/tasks/{task}/events").text.splitlines()
    return [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]


def assert_saved(server: Server, workspace: str, task: str, types: Callable[[list[str]], bool]) -> None:
    """Its file is there, its events have no gap and come once, and nothing of it is left."""
    assert server.http.get(f"/workspace/{workspace}/download/task.txt").text == "words"
    events = told(server, task)
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    assert types([one["type"] for one in events])
    assert_whole(server)


@pytest.mark.parametrize("point", sorted(one for one in POINTS if one.startswith("tasks.")))
def test_c01_a_task_outlives_the_server_at_each_of_its_steps(mortal: Server, point: str) -> None:
    server, workspace = mortal, point.replace(".", "-")
    die_at(server, point, lambda: submit(server, workspace))
    [known] = server.http.get("/tasks", params={"limit": 1}).json()["tasks"]
    task = ended(server, known["taskId"])
    assert (task["state"], task["reason"], task["output"]) == ("succeeded", "done", OUTPUT)
    whole = ["task.started", *["output"] * LINES, "task.ended"]
    assert_saved(server, workspace, task["taskId"], lambda types: types == whole)


@pytest.mark.parametrize("victim", ["server", "node"])
def test_c05_a_task_outlives_the_server_and_the_node_in_the_middle(mortal: Server, victim: str) -> None:
    server, workspace = mortal, f"middle-{victim}"
    task = submit(server, workspace)
    until(lambda: any(one["type"] == "output" for one in told_so_far(server, task)), what="it has begun")
    if victim == "server":
        server.kill()
        server.start()
    else:
        os.kill(server.machine.node(), signal.SIGKILL)
    done = ended(server, task)
    assert (done["state"], done["output"]) == ("succeeded", OUTPUT)
    whole = ["task.started", *["output"] * LINES, "task.ended"]
    assert_saved(server, workspace, task, lambda types: types == whole)


@pytest.mark.parametrize(("victim", "reason"), [("agent", "agent_failed"), ("sidekick", "lost")])
def test_c05_a_task_whose_agent_or_sandbox_is_killed_has_its_work_saved(
    mortal: Server, victim: str, reason: str
) -> None:
    server, workspace = mortal, f"killed-{victim}"
    name = f"{victim}-{os.getpid()}"
    task = submit(server, workspace, f"cat > task.txt; echo so far; exec -a {name} sleep 1000")
    until(lambda: any(one["type"] == "output" for one in told_so_far(server, task)), what="it has begun")
    agent = the_process(name)
    os.kill(agent if victim == "agent" else parent(agent), signal.SIGKILL)
    done = ended(server, task)
    assert (done["state"], done["reason"], done["output"]) == ("failed", reason, "so far\n")
    assert_saved(server, workspace, task, lambda types: types == ["task.started", "output", "task.ended"])


def told_so_far(server: Server, task: str) -> list[dict[str, Any]]:
    """What was told until now; the stream of a task that goes on is left."""
    found: list[dict[str, Any]] = []
    with server.http.stream("GET", f"/tasks/{task}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                found.append(json.loads(line.removeprefix("data:")))
                if found[-1]["type"] == "output":
                    break
    return found


def the_process(name: str) -> int:
    """The one process that is called so."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _title(pid).startswith(name + " ")]
        return len(found) == 1

    until(there, what=f"{name} runs")
    return found[0]


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _title(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""
