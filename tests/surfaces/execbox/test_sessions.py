"""Sessions over HTTP: what the protocol promises of making, looking at and ending them."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Any

import pytest

from atoll.surfaces.execbox.answers import SessionAnswer

ALICE = "key_a11ce0000000"


async def test_a_session_is_made_used_and_killed(house: Any) -> None:
    session = await house.create(command=["sleep", "60"])
    result = await house.exec(session["id"], ["echo", "hi"])
    killed = await house.call("DELETE", f"/v1/sessions/{session['id']}")
    assert session["status"] == "running"
    assert (result["exitCode"], result["stdout"]) == (0, "hi\n")
    assert (killed.status_code, killed.json()) == (200, {"status": "killed"})


async def test_the_seeds_own_example_is_accepted(open_house: Any) -> None:
    async with open_house(images={"aliases": {"python:3.12": "host"}}) as house:
        answer = await house.call(
            "POST",
            "/v1/sessions",
            json={
                "image": "python:3.12",
                "command": ["sh", "-c", "echo hello; sleep 30"],
                "env": {"DEBUG": "1"},
                "workDir": "/",
                "resources": {"cpuMillis": 1000, "memoryMB": 512, "timeoutMs": 30000},
                "network": "exposed",
                "ports": [{"container": 8080, "protocol": "tcp"}],
            },
        )
    body = answer.json()
    assert answer.status_code == 201
    assert re.fullmatch(r"sess_[0-9a-f]{12}", body["id"])
    assert body["status"] == "running"
    assert datetime.fromisoformat(body["createdAt"]).tzinfo is not None
    port = body["network"]["ports"]["8080"]
    assert body["network"]["mode"] == "exposed"
    assert port["url"] == f"http://{body['network']['host']}:{port['hostPort']}"


async def test_what_was_asked_for_is_shown_and_what_was_not_has_defaults(house: Any) -> None:
    session = await house.create(
        command=["sleep", "60"],
        name="mine",
        workDir="/tmp",
        tty=True,
        resources={"cpuMillis": 250, "memoryMB": 64, "diskMB": 8, "pids": 20, "inodes": 999, "idleMs": 60_000},
    )
    shown = (await house.call("GET", f"/v1/sessions/{session['id']}")).json()
    assert (shown["name"], shown["command"], shown["workDir"]) == ("mine", ["sleep", "60"], "/tmp")
    assert shown["resources"] == {
        "cpuMillis": 250, "memoryMB": 64, "diskMB": 8, "pids": 20, "inodes": 999,
        "timeoutMs": 3_600_000, "idleMs": 60_000,
    }  # fmt: skip
    assert set(shown["usage"]) == {"durationMs", "cpuMs", "memoryPeakBytes", "bytesIn", "bytesOut", "execCount"}


async def test_whose_it_is_and_what_it_was_given_are_shown_but_no_value(house: Any) -> None:
    made = await house.call("POST", "/api/secrets", json={"name": "TOKEN", "value": "t0p-s3cret"})
    session = await house.create(
        command=["sleep", "60"],
        secrets=["TOKEN", {"name": "TOKEN", "as": "file"}],
        capability={"scopes": ["write", "read"], "expiresInMs": 60_000, "budgetMicroUsd": 7},
    )
    answer = await house.call("GET", f"/v1/sessions/{session['id']}")
    shown, secret = answer.json(), made.json()["id"]
    assert SessionAnswer.model_validate_json(answer.content).owner == session["owner"] == ALICE
    assert shown["secrets"] == [
        {"name": secret, "as": "env", "env": "TOKEN"},
        {"name": secret, "as": "file", "path": "/run/secrets/TOKEN"},
    ]
    ends = datetime.fromisoformat(shown["capability"].pop("expiresAt"))
    assert (ends - datetime.fromisoformat(shown["createdAt"])).total_seconds() == 60
    assert shown["capability"] == {"scopes": ["read", "write"], "budgetMicroUsd": 7}
    assert "t0p-s3cret" not in answer.text


@pytest.mark.parametrize(
    ("legacy", "shown"),
    [
        ({"computePower": 2, "storageMB": 9, "timeout": "1m30s"}, (2000, 9, 90_000)),
        ({"computePower": 2, "cpuMillis": 500, "storageMB": 9, "timeout": "1h", "timeoutMs": 7000}, (500, 9, 7000)),
    ],
)
async def test_the_older_names_of_resources_still_work(house: Any, legacy: Any, shown: Any) -> None:
    resources = (await house.create(resources=legacy))["resources"]
    assert (resources["cpuMillis"], resources["diskMB"], resources["timeoutMs"]) == shown


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "image"),
        ({"image": ""}, "image"),
        ({"image": "nothing-of-that-name"}, "image"),
        ({"image": "host", "command": "sleep 1"}, "command"),
        ({"image": "host", "command": ["a\0b"]}, "command"),
        ({"image": "host", "env": {"A": 1}}, "env.A"),
        ({"image": "host", "env": {"A=B": "1"}}, "env"),
        ({"image": "host", "workDir": "tmp"}, "workDir"),
        ({"image": "host", "network": "all"}, "network"),
        ({"image": "host", "ports": [{"container": 70000}], "network": "exposed"}, "ports.0.container"),
        ({"image": "host", "ports": [{"container": 53, "protocol": "udp"}], "network": "exposed"}, "ports"),
        ({"image": "host", "ports": [{"container": 80}]}, "ports"),
        ({"image": "host", "resources": {"memoryMb": 5}}, "resources.memoryMb"),
        ({"image": "host", "resources": {"memoryMB": 2**40}}, "resources.memoryMB"),
        ({"image": "host", "resources": {"timeout": "soon"}}, "resources.timeout"),
        ({"image": "host", "files": [{"path": "/a", "content": "?", "encoding": "base64"}]}, "files"),
        ({"image": "host", "files": [{"path": "a", "content": ""}]}, "files"),
        ({"image": "host", "setup": ["FROM scratch"]}, "setup"),
        ({"image": "host", "imgae": "x"}, "imgae"),
        ({"image": "host", "tty": "yes"}, "tty"),
        ({"image": "host", "name": ""}, "name"),
    ],
)
async def test_a_wrong_field_is_named(house: Any, body: Any, field: str) -> None:
    answer = await house.call("POST", "/v1/sessions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST"), answer.text
    assert answer.json()["field"] == field
    assert answer.json()["error"] == answer.json()["detail"]
    assert (await house.call("GET", "/v1/sessions?status=running")).json() == {"sessions": []}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"image": "\\ud800"}', b"[" * 50_000]
)
async def test_a_body_that_is_no_object_is_refused(house: Any, body: bytes) -> None:
    answer = await house.call("POST", "/v1/sessions", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


async def test_several_wrong_fields_are_all_named_and_none_is_repeated(house: Any) -> None:
    answer = await house.call("POST", "/v1/sessions", json={"image": 5, "tty": "hunter2", "env": []})
    assert {error["location"] for error in answer.json()["errors"]} == {"image", "tty", "env"}
    assert "hunter2" not in answer.text


async def test_a_schema_reference_is_no_unknown_field(house: Any) -> None:
    answer = await house.call("POST", "/v1/sessions", json={"$schema": "x", "image": "host", "network": "none"})
    assert answer.status_code == 201


async def test_a_body_beyond_the_limit_is_a_413(open_house: Any) -> None:
    async with open_house(server={"port": 0, "body_bytes": 2000, "drain_s": 1}) as house:
        big = {"image": "host", "env": {"A": "x" * 3000}}
        answer = await house.call("POST", "/v1/sessions", json=big)

        async def endless() -> Any:
            for _ in range(100):
                yield b" " * 1000

        streamed = await house.call("POST", "/v1/sessions", content=endless())
    for refused in (answer, streamed):
        assert (refused.status_code, refused.json()["code"]) == (413, "TOO_LARGE")


async def test_sessions_are_listed_newest_first_and_by_status(house: Any) -> None:
    first = await house.create()
    second = await house.create()
    await house.call("DELETE", f"/v1/sessions/{first['id']}")
    everything = (await house.call("GET", "/v1/sessions")).json()["sessions"]
    assert [one["id"] for one in everything] == [second["id"], first["id"]]
    for status, ids in (("running", [second["id"]]), ("killed", [first["id"]]), ("failed", [])):
        found = (await house.call("GET", f"/v1/sessions?status={status}")).json()["sessions"]
        assert [one["id"] for one in found] == ids
    assert len((await house.call("GET", "/v1/sessions?limit=1")).json()["sessions"]) == 1
    assert (await house.call("GET", "/v1/sessions?status=gone")).json()["field"] == "status"
    assert (await house.call("GET", "/v1/sessions?limit=0")).json()["field"] == "limit"


async def test_an_ended_session_says_how_and_when(house: Any) -> None:
    session = await house.create(command=["sh", "-c", "exit 7"])
    path = f"/v1/sessions/{session['id']}"
    for _ in range(200):
        shown = (await house.call("GET", path)).json()
        if shown["status"] != "running":
            break
        await asyncio.sleep(0.01)
    assert (shown["status"], shown["exitCode"], shown["reason"]) == ("stopped", 7, "exited")
    assert shown["createdAt"] <= shown["startedAt"] <= shown["endedAt"]
    for method, rest in (("POST", "/stop"), ("DELETE", ""), ("POST", "/keepalive")):
        again = await house.call(method, path + rest)
        assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")


async def test_stop_answers_when_it_has_stopped(house: Any) -> None:
    session = await house.create(command=["sh", "-c", "trap '' TERM; sleep 60"])
    stopped = await house.call("POST", f"/v1/sessions/{session['id']}/stop?graceMs=50")
    assert (stopped.status_code, stopped.json()) == (200, {"status": "stopped"})


async def test_remove_takes_a_session_out_of_sight_live_or_ended(house: Any) -> None:
    live, ended = await house.create(), await house.create()
    await house.call("DELETE", f"/v1/sessions/{ended['id']}")
    for session in (live, ended):
        removed = await house.call("DELETE", f"/v1/sessions/{session['id']}?remove=true")
        assert (removed.status_code, removed.json()) == (200, {"status": "killed", "removed": True})
        assert (await house.call("GET", f"/v1/sessions/{session['id']}")).status_code == 404
    assert (await house.call("GET", "/v1/sessions")).json() == {"sessions": []}


async def test_a_frozen_session_thaws(house: Any) -> None:
    session = await house.create(command=["sleep", "60"])
    path = f"/v1/sessions/{session['id']}"
    assert "paused" not in session
    assert (await house.call("POST", path + "/pause")).json() == {"id": session["id"], "paused": True}
    said = (await house.call("GET", path)).json()
    assert (said["status"], said["paused"]) == ("running", True)
    assert [one["paused"] for one in (await house.call("GET", "/v1/sessions")).json()["sessions"]] == [True]
    assert (await house.call("POST", path + "/exec", json={"command": ["true"]})).status_code == 409
    assert (await house.call("POST", path + "/resume")).json() == {"id": session["id"], "paused": False}
    assert "paused" not in (await house.call("GET", path)).json()
    assert (await house.exec(session["id"], ["echo", "x"]))["stdout"] == "x\n"


async def test_keepalive_takes_a_new_timeout_or_none(house: Any) -> None:
    session = await house.create()
    path = f"/v1/sessions/{session['id']}/keepalive"
    assert (await house.call("POST", path)).status_code == 200
    assert (await house.call("POST", path, json={"timeoutMs": 60_000})).status_code == 200
    assert (await house.call("POST", path, json={"timeoutMs": -1})).json()["field"] == "timeoutMs"


async def test_templates_list_what_image_can_name(open_house: Any) -> None:
    async with open_house(images={"aliases": {"python:3.12": "host"}}) as house:
        found = (await house.call("GET", "/v1/templates")).json()["templates"]
    assert {(one["name"], one["kind"], one.get("base")) for one in found} == {
        ("host", "builtin", None),
        ("python:3.12", "alias", "host"),
    }


async def test_an_exposed_port_is_reached_at_its_url_until_the_session_ends(house: Any) -> None:
    session = await house.create(command=["listen", "80"], network="exposed", ports=[{"container": 80}])
    path = f"/v1/sessions/{session['id']}/url"
    where = (await house.call("GET", path + "?port=80")).json()
    assert where == {
        "containerPort": 80,
        "hostPort": session["network"]["ports"]["80"]["hostPort"],
        "url": session["network"]["ports"]["80"]["url"],
        "protocol": "tcp",
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", where["hostPort"])
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    writer.close()
    assert (await house.call("GET", path + "?port=81")).status_code == 404
    for wrong in ("", "?port=", "?port=x", "?port=0", "?port=65536", "?port=80&port=81"):
        assert (await house.call("GET", path + wrong)).json()["field"] == "port"
    await house.call("DELETE", f"/v1/sessions/{session['id']}")
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", where["hostPort"])


async def test_n14_a_port_where_nobody_listens_closes_the_connection(house: Any) -> None:
    session = await house.create(command=["sleep", "60"], network="exposed", ports=[{"container": 80}])
    port = session["network"]["ports"]["80"]["hostPort"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_quota_is_a_429_with_a_code_of_its_own(open_house: Any) -> None:
    async with open_house(limits={"max_sandboxes_per_key": 2}) as house:
        body = {"image": "host", "network": "none"}
        answers = await asyncio.gather(*(house.call("POST", "/v1/sessions", json=body) for _ in range(8)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201, 201, *[429] * 6]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "QUOTA_EXCEEDED"
    assert re.search(r"\(\d/2\)|2", refused.json()["error"])


async def test_records_that_are_down_are_a_503_with_retry_after(house: Any) -> None:
    house.records.down = True
    answer = await house.call("POST", "/v1/sessions", json={"image": "host", "network": "none"})
    house.records.down = False
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_fault_is_a_500_that_tells_nothing(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/path and hunter2")

    monkeypatch.setattr(house.app.sandboxes, "get", broken)
    answer = await house.call("GET", "/v1/sessions/sess_0123456789ab")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "hunter2" not in answer.text and "secret" not in answer.text


async def test_a_client_that_leaves_while_a_session_is_made_leaves_none_behind(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, begun = house.app.runtime.make, asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        begun.set()
        await asyncio.sleep(0.1)
        return await make(*arguments)

    monkeypatch.setattr(house.app.runtime, "make", slow)
    request = asyncio.create_task(house.call("POST", "/v1/sessions", json={"image": "host", "network": "none"}))
    await begun.wait()
    request.cancel()
    for _ in range(100):
        found = (await house.call("GET", "/v1/sessions")).json()["sessions"]
        if found and found[0]["status"] == "killed":
            break
        await asyncio.sleep(0.02)
    assert [one["status"] for one in found] == ["killed"]
