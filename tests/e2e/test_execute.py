"""Testbase's API over a real server: Codex itself in real sandboxes, a stand-in for the model, and real accounts."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.agents.codex import Codex
from tests.agents.sandboxed import STORE, installed
from tests.e2e.conftest import assert_no_faults, tidy
from tests.e2e.machine import assert_nothing_left, until
from tests.e2e.server import Server

pytestmark = pytest.mark.timeout(120)
ADMIN = "of-the-administrator-in-the-tests-0123456789"
PROVIDERS = "sk-of-the-provider"
SEED = "say: Created hello.py successfully\nusage: input=6548 output=108"


@dataclass
class Cloud:
    """A server with Codex, and one of its users: what the published client knows of it is a URL and a key."""

    server: Server

    def customer(self, dollars: float) -> httpx2.Client:
        """The client of a new standard key with so much credit."""
        key_id, key = self.server.new_key()
        if dollars:
            paid = self.server.http.post(
                f"/billing/admin/{key_id}/credits",
                json={"amount": dollars, "description": "Credit purchase"},
                headers={"authorization": f"Bearer {ADMIN}"},
            )
            assert paid.status_code == 200, paid.text
        return self.server.client(key, timeout=60.0)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    installed(Codex())
    folder = tmp_path_factory.mktemp("cloud")
    words = [sys.executable, "-m", "atoll.testing.model_stand_in", "--port", "0", "--key", PROVIDERS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as model:
        try:
            assert model.stdout is not None and select.select([model.stdout], [], [], 30)[0]
            url = model.stdout.readline().partition("OpenAI: ")[2].rstrip(")\n")
            server = Server(folder / "data", _settings(url))
            server.start()
            yield Cloud(server)
            tidy(server)
            assert_no_faults(server)
            server.down()
            assert_nothing_left(server.machine)
        finally:
            model.terminate()


def _settings(url: str) -> str:
    return f"""
[admin]
api_key = "{ADMIN}"
[agents]
store = "{Path(STORE).resolve()}"
network = "none"
codex = {{ model = "stand-in" }}
[models.openai]
base_url = "{url}"
api_key = "{PROVIDERS}"
[rates]
enabled = false
"""


def execute(client: httpx2.Client, task: str, workspace: str = "my-project-abc123", **more: Any) -> httpx2.Response:
    """What CloudRuntime sends: `sessionId` when it has one, and a Bearer key."""
    return client.post("/execute", json={"task": task, "workspaceId": workspace} | more)


def test_the_seeds_own_example_to_the_millionth(cloud: Cloud) -> None:
    with cloud.customer(10) as client:
        answer = execute(client, SEED)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body.pop("sessionId").startswith("thread_") and body.pop("taskId").startswith("task_")
        assert body == {
            "output": "Created hello.py successfully",
            "workspaceId": "my-project-abc123",
            "usage": {"inputTokens": 6548, "outputTokens": 108, "totalTokens": 6656, "totalCost": 0.10308},
            "billing": {"balanceAfter": 9.89692, "totalSpent": 0.10308},
        }
        account = client.get("/billing/account").json()
        assert (account["creditsBalance"], account["totalSpent"]) == (9.89692, 0.10308)


def test_the_agent_edits_files_and_its_session_goes_on_after_a_restart_of_the_server(cloud: Cloud) -> None:
    with cloud.customer(10) as client:
        first = execute(
            client, "run: echo 'print(1)' > hello.py\nsay: made {result}\nusage: input=100 output=10"
        ).json()
        assert client.get("/workspace/my-project-abc123/download/hello.py").text == "print(1)\n"
        listed = client.get("/workspace/my-project-abc123/files").json()["files"]
        assert {one["name"] for one in listed} == {"hello.py", ".git"}
    cloud.server.kill()
    cloud.server.start()
    with cloud.server.client(_key_of(client)) as client:
        second = execute(client, "say: and on", sessionId=first["sessionId"])
        assert second.status_code == 200, second.text
        assert second.json()["sessionId"] == first["sessionId"]
        (session,) = client.get("/sessions").json()["sessions"]
        assert (session["sessionId"], session["taskCount"]) == (first["sessionId"], 2)
        unknown = execute(client, "say: x", sessionId="thread-xyz")
        assert (unknown.status_code, unknown.json()) == (
            404,
            {"error": "Session not found", "sessionId": "thread-xyz"},
        )


def test_a_key_without_credit_and_one_that_is_none(cloud: Cloud) -> None:
    with cloud.customer(0) as client:
        answer = execute(client, SEED)
        assert (answer.status_code, answer.json()["error"]) == (402, "Insufficient Credits")
        assert answer.json()["details"] == {"currentBalance": 0, "totalSpent": 0}
    with cloud.server.client("tb_nobody") as client:
        answer = execute(client, SEED)
        assert (answer.status_code, answer.json()) == (403, {"error": "Forbidden", "message": "Invalid API key"})


def test_a_task_that_runs_dry_is_a_402_with_its_output_so_far_and_its_work_saved(cloud: Cloud) -> None:
    script = "usage: input=60000 output=500\nsay: I begin\nrun: echo half > half.txt\nsay: never said\n"
    with cloud.customer(1) as client:
        answer = execute(client, script)
        body = answer.json()
        assert (answer.status_code, body["error"]) == (402, "Insufficient Credits"), body
        assert body["output"] == "I begin" and body["reason"] == "insufficient_credit"
        assert body["usage"] == {"inputTokens": 60000, "outputTokens": 500, "totalTokens": 60500, "totalCost": 0.9225}
        assert body["billing"] == {"balanceAfter": 0.0775, "totalSpent": 0.9225}
        assert client.get("/workspace/my-project-abc123/download/half.txt").text == "half\n"
        told = client.get(f"/tasks/{body['taskId']}").json()
        assert (told["state"], told["code"]) == ("failed", "insufficient_credit")
        assert client.get("/billing/account").json()["creditsBalance"] == 0.0775


def test_a_cancelled_task_is_paid_as_far_as_it_came_and_keeps_its_work(cloud: Cloud) -> None:
    script = "usage: input=1000 output=100\nrun: echo part > part.txt; sleep 60\nsay: never said"
    with cloud.customer(10) as client:
        begun = execute(client, script, wait=False)
        assert begun.status_code == 202, begun.text
        task = begun.json()["taskId"]

        def works() -> bool:
            listed = client.get("/workspace/my-project-abc123/files").json()["files"]
            return any(one["name"] == "part.txt" for one in listed)

        until(works, 30, what="the agent's work")
        ended = client.post(f"/tasks/{task}/cancel").json()
        assert (ended["state"], ended["reason"]) == ("cancelled", "cancelled")
        assert ended["usage"]["totalTokens"] == 1100
        assert ended["billing"] == {"balanceAfter": 9.9805, "totalSpent": 0.0195}
        assert client.get("/workspace/my-project-abc123/download/part.txt").text == "part\n"


def test_events_go_on_over_a_killed_server_without_a_gap(cloud: Cloud) -> None:
    script = "say: one\nrun: sleep 4; echo late > late.txt\nsay: two"
    client = cloud.customer(10)
    seen: list[dict[str, Any]] = []
    with (
        client,
        client.stream(
            "POST",
            "/execute",
            json={"task": script, "workspaceId": "w"},
            headers={"accept": "text/event-stream"},
        ) as stream,
    ):
        task = stream.headers["atoll-task"]
        for event in events(stream):
            seen.append(event)
            if event["type"] == "command":
                break
        cloud.server.kill()
    cloud.server.start()
    with cloud.server.client(_key_of(client), timeout=60.0) as client:
        last = {"last-event-id": str(seen[-1]["seq"])}
        with client.stream("GET", f"/tasks/{task}/events", headers=last) as stream:
            seen += list(events(stream))
        assert [one["seq"] for one in seen] == list(range(1, len(seen) + 1))
        assert seen[0]["type"] == "task.started" and seen[-1]["type"] == "task.ended"
        assert (seen[-1]["data"]["state"], seen[-1]["data"]["output"]) == ("succeeded", "two"), seen[-1]
        assert [one["data"]["text"] for one in seen if one["type"] == "message"] == ["one", "two"]
        assert client.get("/workspace/w/download/late.txt").text == "late\n"


def events(stream: httpx2.Response) -> Iterator[dict[str, Any]]:
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def _key_of(client: httpx2.Client) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")
