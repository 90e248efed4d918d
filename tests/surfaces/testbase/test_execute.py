"""`POST /execute` and `/tasks` to the letter of the wire page, with a program as the agent that really runs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from atoll.surfaces.testbase import task_stream
from tests.services.conftest import until
from tests.surfaces.conftest import ALICE, OWNER

ALICE_ID = "key_a11ce0000000"
INSUFFICIENT = "Your credit balance is insufficient. Please add credits to continue."


@pytest.fixture
async def rich(house: Any) -> Any:
    """A house in which alice has ten dollars."""
    await pay(house, ALICE_ID, 10_000_000)
    return house


async def pay(house: Any, account: str, amount: int) -> None:
    await house.app.ledger.credit(house.keys.principals[OWNER], account, amount)


async def execute(house: Any, *command: str, key: str | None = None, **more: Any) -> Any:
    headers = more.pop("headers", {})
    body = {"task": "do it", "workspaceId": "my-project", "agent": "command", "command": list(command)} | more
    return await house.call("POST", "/execute", *([key] if key else []), json=body, headers=headers)


async def test_a_task_is_done_and_its_files_are_in_the_workspace(rich: Any) -> None:
    answer = await execute(rich, "sh", "-c", "echo hello > /workspace/hello.txt; echo done")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["output"] == "done\n" or body["output"] == "done"
    assert body["workspaceId"] == "my-project" and body["sessionId"].startswith("thread_")
    assert body["billing"] == {"balanceAfter": 10, "totalSpent": 0} and "usage" not in body
    assert answer.headers["atoll-task"] == body["taskId"]
    got = await rich.call("GET", "/workspace/my-project/download/hello.txt")
    assert got.text == "hello\n"


async def test_internal_keys_are_asked_for_no_money_and_told_of_none(house: Any, keys: Any) -> None:
    answer = await execute(house, "true", key=keys.OWNER)
    assert answer.status_code == 200 and "billing" not in answer.json()


async def test_who_has_no_credit_hears_402_before_what_is_wrong_with_the_body(house: Any) -> None:
    for body in ({"task": "x", "workspaceId": "w"}, {"nonsense": 1}, [1]):
        answer = await house.call("POST", "/execute", json=body)
        assert (answer.status_code, answer.json()) == (
            402,
            {
                "error": "Insufficient Credits",
                "message": INSUFFICIENT,
                "details": {"currentBalance": 0, "totalSpent": 0},
            },
        )
    assert (await house.call("GET", "/tasks")).json() == {"count": 0, "tasks": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"workspaceId": "w"}, "task"),
        ({"task": "", "workspaceId": "w"}, "task"),
        ({"task": "x" * 100_001, "workspaceId": "w"}, "task"),
        ({"task": 5, "workspaceId": "w"}, "task"),
        ({"task": "x"}, "workspaceId"),
        ({"task": "x", "workspaceId": ""}, "workspaceId"),
        ({"task": "x", "workspaceId": "../x"}, "workspaceId"),
        ({"task": "x", "workspaceId": "w" * 129}, "workspaceId"),
        ({"task": "x", "workspaceId": "w", "sessionId": "a b"}, "sessionId"),
        ({"task": "x", "workspaceId": "w", "mcpServers": [{"name": "a", "type": "ftp"}]}, "mcpServers"),
        ({"task": "x", "workspaceId": "w", "mcpServers": [{"name": "a", "type": "stdio"}]}, "mcpServers"),
        ({"task": "x", "workspaceId": "w", "agent": "nobody"}, "agent"),
        ({"task": "x", "workspaceId": "w", "agent": "codex", "command": ["sh"]}, "command"),
        ({"task": "x", "workspaceId": "w", "budget": -1}, "budget"),
        ({"task": "x", "workspaceId": "w", "budget": "much"}, "budget"),
        ({"task": "x", "workspaceId": "w", "timeout": 0}, "timeout"),
        ({"task": "x", "workspaceId": "w", "unknown": 0}, "unknown"),
    ],
)
async def test_what_is_wrong_is_named(rich: Any, body: Any, field: str) -> None:
    answer = await rich.call("POST", "/execute", json=body)
    assert answer.status_code == 400, answer.text
    found = answer.json()
    assert found["error"] == "Validation failed"
    assert [one for one in found["errors"] if one["field"].startswith(field) and one["message"]], found


async def test_a_session_goes_on_and_an_unknown_one_is_an_error(rich: Any, keys: Any) -> None:
    first = (await execute(rich, "true")).json()
    second = (await execute(rich, "true", sessionId=first["sessionId"])).json()
    assert second["sessionId"] == first["sessionId"]
    other = (await execute(rich, "true", sessionId="")).json()
    assert other["sessionId"] != first["sessionId"]
    await pay(rich, "key_b0b000000000", 10)
    for key, session in ((None, "thread_" + "5" * 24), (None, "nonsense"), (keys.BOB, first["sessionId"])):
        answer = await execute(rich, "true", key=key, sessionId=session)
        assert (answer.status_code, answer.json()) == (404, {"error": "Session not found", "sessionId": session})


async def test_sessions_are_listed_looked_at_and_deleted(rich: Any, keys: Any) -> None:
    done = (await execute(rich, "true")).json()
    await execute(rich, "true", sessionId=done["sessionId"])
    listed = (await rich.call("GET", "/sessions")).json()
    (session,) = listed["sessions"]
    assert listed["count"] == 1
    assert (session["sessionId"], session["taskCount"]) == (done["sessionId"], 2)
    assert session["workspaceId"] == "my-project"  # as its owner calls it
    assert set(session) == {"sessionId", "threadId", "workspaceId", "lastActivity", "taskCount", "created"}
    path = f"/sessions/{done['sessionId']}"
    assert (await rich.call("GET", path)).json() == session
    assert (await rich.call("GET", "/sessions/active/list")).json() == {"count": 0, "sessions": []}
    assert (await rich.call("POST", "/cache/clear")).json() == {"success": True, "message": "Thread cache cleared"}
    assert (await rich.call("GET", path)).json() == session  # nothing was lost
    lost = {"error": "Session not found", "sessionId": done["sessionId"]}
    assert (await rich.call("DELETE", path, keys.BOB)).json() == lost
    assert (await rich.call("DELETE", path)).json() == {"success": True, "sessionId": done["sessionId"]}
    for method in ("GET", "DELETE"):
        answer = await rich.call(method, path)
        assert (answer.status_code, answer.json()) == (404, lost)
    assert (await execute(rich, "true", sessionId=done["sessionId"])).json() == lost


async def test_a_program_that_fails_is_a_500_with_what_it_wrote(rich: Any) -> None:
    answer = await execute(rich, "sh", "-c", "echo so far; exit 3")
    body = answer.json()
    assert (answer.status_code, body["error"], body["reason"]) == (500, "Task execution failed", "agent_failed")
    assert "so far" in body["output"] and body["message"] and body["sessionId"]


async def test_a_task_that_nobody_waits_for_is_looked_at_and_ended(rich: Any) -> None:
    begun = await execute(rich, "sleep", "60", wait=False)
    assert begun.status_code == 202
    task = begun.json()["taskId"]
    assert begun.json()["state"] in ("queued", "running")
    active = (await rich.call("GET", "/sessions/active/list")).json()
    assert active == {"count": 1, "sessions": [begun.json()["sessionId"]]}
    ended = (await rich.call("POST", f"/tasks/{task}/cancel")).json()
    assert (ended["state"], ended["reason"]) == ("cancelled", "cancelled")
    assert (await rich.call("GET", f"/tasks/{task}")).json() == ended
    assert (await rich.call("GET", "/tasks?state=cancelled")).json() == {"count": 1, "tasks": [ended]}
    assert (await rich.call("GET", "/tasks?state=failed")).json()["count"] == 0


async def test_async_says_the_same_as_not_waiting(rich: Any) -> None:
    assert (await execute(rich, "true", **{"async": True})).status_code == 202


def frames(text: str) -> list[dict[str, Any]]:
    """Events of a stream, each with its id and name."""
    found: list[dict[str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            value = json.loads(fields["data"])
            assert (str(value["seq"]), value["type"]) == (fields["id"], fields["event"])
            found.append(value)
    return found


STREAM = {"accept": "text/event-stream"}


async def test_events_come_as_they_happen_and_the_last_one_carries_the_task(rich: Any) -> None:
    answer = await execute(rich, "sh", "-c", "echo one; echo two", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = frames(answer.text)
    assert [one["seq"] for one in told] == list(range(1, len(told) + 1))
    assert (told[0]["type"], told[-1]["type"]) == ("task.started", "task.ended")
    last = told[-1]["data"]
    assert (last["state"], last["taskId"]) == ("succeeded", answer.headers["atoll-task"])
    assert last["workspaceId"] == "my-project"
    assert "one" in last["output"] and last["billing"]["balanceAfter"] == 10
    for after in (1, len(told) - 1, len(told)):
        path = f"/tasks/{last['taskId']}/events"
        for headers, query in (({"last-event-id": str(after)}, ""), ({}, f"?after={after}")):
            again = await rich.call("GET", path + query, headers=headers)
            assert frames(again.text) == told[after:]


async def test_a_stream_that_says_nothing_is_kept_alive(rich: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_stream, "KEEP_ALIVE_S", 0.05)
    answer = await execute(rich, "sleep", "0.4", headers=STREAM)
    assert answer.text.count(": the task goes on\n\n") >= 2 and frames(answer.text)[-1]["type"] == "task.ended"


async def test_a_client_that_goes_away_ends_nothing(rich: Any) -> None:
    for headers in ({}, STREAM):
        waiting = asyncio.create_task(execute(rich, "sh", "-c", "sleep 0.5; echo late", headers=headers))
        await asyncio.sleep(0.3)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        task = (await rich.call("GET", "/tasks")).json()["tasks"][0]["taskId"]
        told = frames((await rich.call("GET", f"/tasks/{task}/events")).text)
        assert told[-1]["data"]["state"] == "succeeded" and "late" in told[-1]["data"]["output"]


async def test_one_idempotency_key_is_one_task_however_it_is_asked_for(rich: Any) -> None:
    async def ask(accept: str = "application/json", key: str = "one") -> Any:
        headers = {"idempotency-key": key, "accept": accept}
        return await execute(rich, "sh", "-c", "sleep 0.2; echo once", headers=headers)

    first = await ask()
    again = await ask()
    streamed = await ask("text/event-stream")
    assert first.status_code == again.status_code == 200 and first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true" and "idempotent-replayed" not in first.headers
    assert frames(streamed.text)[-1]["data"]["taskId"] == first.json()["taskId"]
    begun = await asyncio.gather(*(ask(key="two") for _ in range(4)))
    done = [one for one in begun if one.status_code == 200]
    assert len({one.json()["taskId"] for one in done}) == 1
    assert {one.status_code for one in begun} <= {200, 409}
    assert (await rich.call("GET", "/tasks")).json()["count"] == 2
    other = await execute(rich, "false", headers={"idempotency-key": "one"})
    assert other.status_code == 422


async def test_others_tasks_are_unknown(rich: Any, keys: Any) -> None:
    task = (await execute(rich, "true")).json()["taskId"]
    nobodys = "task_" + "5" * 24
    for method, rest in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        theirs = await rich.call(method, f"/tasks/{task}{rest}", keys.BOB)
        unknown = await rich.call(method, f"/tasks/{nobodys}{rest}", keys.BOB)
        assert theirs.status_code == unknown.status_code == 404
        assert theirs.text == unknown.text
    assert (await rich.call("GET", "/tasks", keys.BOB)).json() == {"count": 0, "tasks": []}


async def test_executing_needs_the_scope_and_no_other(rich: Any, keys: Any) -> None:
    assert (await execute(rich, "true", key=keys.READER)).status_code == 403
    assert (await execute(rich, "true", key=keys.EXECUTOR)).status_code == 403  # to make the workspace takes more
    assert (await execute(rich, "true")).status_code == 200
    assert (await execute(rich, "true", key=keys.EXECUTOR)).status_code == 200


async def test_executions_have_a_rate_of_their_own(open_house: Any, keys: Any) -> None:
    async with open_house(rates={"testbase_execute": {"address_requests": 2}}) as house:
        answers = [await house.call("POST", "/execute", json={}) for _ in range(3)]
        assert [one.status_code for one in answers] == [402, 402, 429]
        assert answers[-1].json() == {
            "error": "Too many execution requests",
            "message": "Execution rate limit exceeded. Please try again later.",
        }


async def test_a_list_has_the_beginning_of_what_tasks_wrote_and_one_task_has_all(rich: Any) -> None:
    done = (await execute(rich, "echo", "y" * 4_000, "y" * 2_000, task="x" * 5_000)).json()
    assert len(done["output"]) > 5_000
    (listed,) = (await rich.call("GET", "/tasks")).json()["tasks"]
    assert (len(listed["task"]), len(listed["output"])) == (1_000, 1_000)
    whole = (await rich.call("GET", f"/tasks/{done['taskId']}")).json()
    assert (whole["task"], whole["output"]) == ("x" * 5_000, done["output"])


async def test_one_key_has_so_many_streams_and_no_more(open_house: Any) -> None:
    async with open_house(limits={"ws_per_key": 1}) as house:
        await pay(house, ALICE_ID, 1_000)
        task = (await execute(house, "sleep", "60", wait=False)).json()["taskId"]
        path = f"{house.url}/tasks/{task}/events"
        for _ in range(2):  # closed, it gives its place away
            async with house.http.stream("GET", path, headers=house.headers(ALICE)) as first:
                assert first.status_code == 200
                refused = await house.call("GET", f"/tasks/{task}/events")
                assert (refused.status_code, refused.json()["error"]) == (429, "Too many requests")

            async def closed() -> bool:
                async with house.http.stream("GET", path, headers=house.headers(ALICE)) as again:
                    return again.status_code == 200

            await until(closed)
        await house.call("POST", f"/tasks/{task}/cancel")


async def test_money_that_cannot_be_looked_up_is_no_free_task(rich: Any) -> None:
    rich.records.down = True
    try:
        answer = await execute(rich, "true")
        assert (answer.status_code, answer.json()["error"]) == (503, "Service Unavailable")
        assert (await execute(rich, task=5)).status_code == 503  # before what is wrong with the body
    finally:
        rich.records.down = False
    assert (await rich.call("GET", "/tasks")).json()["count"] == 0


async def test_a_workspace_that_is_shared_is_called_by_its_id(rich: Any, keys: Any) -> None:
    made = (await rich.call("POST", "/v1/workspaces", keys.BOB, json={"name": "bobs"})).json()["id"]
    share = {"permission": "write"}
    await rich.call("PUT", f"/v1/workspaces/{made}/collaborators/{ALICE_ID}", keys.BOB, json=share)
    done = await execute(rich, "touch", "/workspace/new", workspaceId=made)
    assert (done.status_code, done.json()["workspaceId"]) == (200, made), done.text
    told = (await rich.call("GET", f"/tasks/{done.json()['taskId']}")).json()
    assert told["workspaceId"] == made
    assert (await rich.call("GET", "/workspace/bobs/download/new", keys.BOB)).status_code == 200
    assert (await rich.call("GET", "/tasks", keys.BOB)).json()["count"] == 0  # who asked has it, and paid
