"""Commands over plain HTTP: run to the end, list, signal, wait, and read the main process's output."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import httpx2
import pytest


@pytest.fixture
async def session(house: Any) -> dict[str, Any]:
    return await house.create(command=["sleep", "600"])


async def test_a_result_says_all_about_the_end(house: Any, session: Any) -> None:
    result = await house.exec(session["id"], ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert {name: result[name] for name in ("exitCode", "signal", "stdout", "stderr")} == {
        "exitCode": 3, "signal": None, "stdout": "out\n", "stderr": "err\n",
    }  # fmt: skip
    assert (result["truncated"], result["timedOut"], result["oomKilled"]) == (False, False, False)
    assert result["processId"] and result["durationMs"] >= 0


async def test_one_string_is_split_by_shell_words_and_no_shell_runs_it(house: Any, session: Any) -> None:
    result = await house.exec(session["id"], "echo 'a  b' c\\ d $HOME; echo no")
    assert result["stdout"] == "a  b c d $HOME; echo no\n"


async def test_env_and_directory_are_the_commands_own(house: Any, session: Any) -> None:
    result = await house.exec(session["id"], ["sh", "-c", "echo $A; pwd"], env={"A": "1"}, workDir="/tmp")
    assert result["stdout"] == "1\n/tmp\n"


async def test_stdin_reaches_the_command_and_ends(house: Any, session: Any) -> None:
    assert (await house.exec(session["id"], ["cat"], stdin="text é"))["stdout"] == "text é"
    data = bytes(range(256))
    result = await house.exec(session["id"], ["cat"], stdin=base64.b64encode(data).decode(), encoding="base64")
    assert base64.b64decode(result["stdout"]) == data


async def test_output_that_is_no_text_is_replaced_or_exact_in_base64(house: Any, session: Any) -> None:
    await house.call("POST", f"/v1/sessions/{session['id']}/files?path=/tmp/b", content=b"a\xffb")
    assert (await house.exec(session["id"], ["cat", "/tmp/b"]))["stdout"] == "a\ufffdb"
    exact = await house.exec(session["id"], ["cat", "/tmp/b"], encoding="base64")
    assert base64.b64decode(exact["stdout"]) == b"a\xffb"


async def test_r08_a_flood_is_cut_at_the_limit_and_says_so(open_house: Any) -> None:
    async with open_house(limits={"run_output_bytes": 10_000}) as house:
        session = await house.create()
        flood = await house.exec(session["id"], ["flood", "1000000"])
        assert (len(flood["stdout"]), flood["truncated"], flood["exitCode"]) == (10_000, True, 0)
        asked = await house.exec(session["id"], ["flood", "1000000"], maxOutputBytes=160)
        assert (len(asked["stdout"]), asked["truncated"]) == (160, True)
        more = await house.exec(session["id"], ["flood", "1000000"], maxOutputBytes=2**40)
        assert len(more["stdout"]) == 10_000  # nobody gets more than the server's limit
        exact = await house.exec(session["id"], ["flood", "160"], maxOutputBytes=160)
        assert (len(exact["stdout"]), exact["truncated"]) == (160, False)


async def test_a_timeout_ends_the_command_and_is_told(house: Any, session: Any) -> None:
    started = time.monotonic()
    result = await house.exec(session["id"], ["sleep", "60"], timeoutMs=100)
    assert result["timedOut"] is True
    assert 0.09 < time.monotonic() - started < 5


async def test_a_signal_is_told_apart_from_an_exit_code(house: Any, session: Any) -> None:
    by_signal = await house.exec(session["id"], ["sh", "-c", "kill -TERM $$; sleep 5"])
    by_code = await house.exec(session["id"], ["sh", "-c", "exit 143"])
    assert (by_signal["exitCode"], by_signal["signal"]) == (143, 15)
    assert (by_code["exitCode"], by_code["signal"]) == (143, None)


async def test_a_missing_program_ends_with_127(house: Any, session: Any) -> None:
    result = await house.exec(session["id"], ["no-such-program"])
    assert result["exitCode"] == 127
    assert "no-such-program" in result["stderr"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "command"),
        ({"command": []}, "command"),
        ({"command": ""}, "command"),
        ({"command": "echo 'open"}, "command"),
        ({"command": [1]}, "command.0"),
        ({"command": 1}, "command"),
        ({"command": [""]}, "cmd"),
        ({"command": ["true"], "env": {"": "x"}}, "env"),
        ({"command": ["true"], "workDir": "/no/such/dir"}, "cwd"),
        ({"command": ["true"], "timeoutMs": 0}, "timeoutMs"),
        ({"command": ["true"], "timeoutMs": 1.5}, "timeoutMs"),
        ({"command": ["cat"], "stdin": "%", "encoding": "base64"}, "stdin"),
        ({"command": ["cat"], "encoding": "latin1"}, "encoding"),
        ({"command": ["true"], "tiemout": 1}, "tiemout"),
    ],
)
async def test_a_wrong_field_is_named(house: Any, session: Any, body: Any, field: str) -> None:
    answer = await house.call("POST", f"/v1/sessions/{session['id']}/exec", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST"), answer.text
    assert answer.json()["field"] == field


async def test_l08_commands_whose_clients_leave_are_ended(house: Any, session: Any) -> None:
    path = f"{house.url}/v1/sessions/{session['id']}/exec"
    async with httpx2.AsyncClient(headers=house.headers("sk_" + "a1" * 32)) as leaving:
        requests = [asyncio.create_task(leaving.post(path, json={"command": ["sleep", "600"]})) for _ in range(20)]
        for _ in range(200):
            if len(await running(house, session["id"])) == 21:
                break
            await asyncio.sleep(0.01)
        assert len(await running(house, session["id"])) == 21
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    for _ in range(200):
        if len(await running(house, session["id"])) == 1:
            break
        await asyncio.sleep(0.02)
    assert await running(house, session["id"]) == ["main"]


async def test_processes_are_listed_signalled_and_waited_for(house: Any, session: Any) -> None:
    base = f"/v1/sessions/{session['id']}/processes"
    async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=sleep&cmd=600") as socket:
        process_id = socket.response.headers["Atoll-Process"]
        listed = {info["id"]: info for info in (await house.call("GET", base)).json()["processes"]}
        assert listed[process_id]["command"] == ["sleep", "600"]
        assert listed[process_id]["running"] is True
        late = await house.call("GET", f"{base}/{process_id}/wait?timeoutMs=50")
        assert (late.status_code, late.json()["code"]) == (504, "DEADLINE_EXCEEDED")
        waiting = asyncio.create_task(house.call("GET", f"{base}/{process_id}/wait"))
        sent = await house.call("POST", f"{base}/{process_id}/signal", json={"signal": "TERM"})
        assert sent.json() == {"processId": process_id, "signal": 15}
        assert ((await waiting).json()["exitCode"], (await waiting).json()["signal"]) == (143, 15)
    again = await house.call("POST", f"{base}/{process_id}/signal", json={"signal": 9})
    assert again.status_code == 409
    assert (await house.call("GET", f"{base}/p99/wait")).status_code == 404
    for wrong in ("NOSUCH", 0, 65, 1.5, None):
        refused = await house.call("POST", f"{base}/main/signal", json={"signal": wrong})
        assert (refused.status_code, refused.json()["code"]) == (400, "BAD_REQUEST")


async def test_logs_give_what_was_written_so_far_and_follow_to_the_end(house: Any) -> None:
    session = await house.create(command=["sh", "-c", "echo one; sleep 0.4; echo two; sleep 0.2"])
    path = f"/v1/sessions/{session['id']}/logs"
    await asyncio.sleep(0.1)
    now = await house.call("GET", path)
    assert (now.content, now.headers["atoll-offset"]) == (b"one\n", "0")
    assert now.headers["content-type"].startswith("text/plain")
    assert (await house.call("GET", path + "?offset=2")).content == b"e\n"
    assert (await house.call("GET", path + "?offset=999")).content == b""
    followed = await house.call("GET", path + "?follow=true&offset=4")
    assert followed.content == b"two\n"


async def test_logs_of_a_session_that_ended_by_itself_stay(house: Any) -> None:
    session = await house.create(command=["sh", "-c", "echo last words"])
    path = f"/v1/sessions/{session['id']}"
    for _ in range(200):
        if (await house.call("GET", path)).json()["status"] == "stopped":
            break
        await asyncio.sleep(0.01)
    for more in ("", "?follow=true"):
        assert (await house.call("GET", path + "/logs" + more)).content == b"last words\n"


async def test_a_follower_that_leaves_leaves_nothing(house: Any, session: Any) -> None:
    path = f"{house.url}/v1/sessions/{session['id']}/logs?follow=true"
    before = len(asyncio.all_tasks())
    for _ in range(10):
        async with house.http.stream("GET", path, headers=house.headers("sk_" + "a1" * 32)):
            pass
    for _ in range(100):
        if len(asyncio.all_tasks()) <= before + 1:
            break
        await asyncio.sleep(0.02)
    assert len(asyncio.all_tasks()) <= before + 1


async def running(house: Any, session_id: str) -> list[str]:
    answer = await house.call("GET", f"/v1/sessions/{session_id}/processes")
    return [info["id"] for info in answer.json()["processes"] if info["running"]]
