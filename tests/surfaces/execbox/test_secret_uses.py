"""Secrets in requests of this dialect: for a session, for a command, for a stream."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
async def token(house: Any) -> str:
    answer = await house.call("POST", "/api/secrets", json={"name": "TOKEN", "value": "t0p"})
    return answer.json()["id"]


async def test_a_session_gives_them_to_its_main_process(house: Any) -> None:
    wanted = ["TOKEN", {"name": "TOKEN", "env": "OTHER"}, {"name": "TOKEN", "as": "file"}]
    made = await house.create(
        command=["sh", "-c", "echo $TOKEN $OTHER; cat /run/secrets/TOKEN; sleep 0.3"], secrets=wanted
    )
    assert "t0p" not in str(made)
    logs = await house.call("GET", f"/v1/sessions/{made['id']}/logs?follow=true")
    assert logs.text == "t0p t0p\nt0p"
    assert "t0p" not in (await house.call("GET", f"/v1/sessions/{made['id']}")).text


async def test_a_command_has_its_own(house: Any, token: str) -> None:
    session = (await house.create())["id"]
    done = await house.exec(session, ["sh", "-c", "echo $X"], secrets=[{"name": token, "as": "env", "env": "X"}])
    assert done["stdout"] == "t0p\n"
    assert "t0p" not in (await house.exec(session, ["env"]))["stdout"]
    assert "t0p" not in (await house.call("GET", f"/v1/sessions/{session}/processes")).text


@pytest.mark.parametrize(
    ("word", "line"),
    [("TOKEN", "echo $TOKEN"), ("TOKEN=X", "echo $X"), ("TOKEN=/run/secrets/a", "cat /run/secrets/a; echo")],
)
async def test_a_stream_names_them_in_its_query(house: Any, word: str, line: str) -> None:
    session = (await house.create())["id"]
    query = f"cmd=sh&cmd=-c&cmd={line}&secret={word}&stdin=false&protocol=json"
    async with house.socket(f"/v1/sessions/{session}/exec?{query.replace(' ', '%20').replace('$', '%24')}") as socket:
        first = await socket.recv()
    assert "dDBw" in first  # base64 of `t0p`


@pytest.mark.parametrize(
    "wanted",
    [
        [{"name": "TOKEN", "as": "env", "path": "/run/secrets/x"}],
        [{"name": "TOKEN", "as": "file", "env": "X"}],
        [{"name": "TOKEN", "as": "stdin"}],
        [{"name": "TOKEN", "as": "file", "path": "/tmp/x"}],
        [{"name": ""}],
        [{}],
        [1],
        "TOKEN",
        ["TOKEN", "TOKEN"],
        ["TOKEN"] * 65,
    ],
)
async def test_what_cannot_be_is_a_wrong_field(house: Any, wanted: Any) -> None:
    session = (await house.create())["id"]
    for path, body in (
        ("/v1/sessions", {"image": "host", "network": "none"}),
        (f"/v1/sessions/{session}/exec", {"command": ["true"]}),
    ):
        answer = await house.call("POST", path, json=body | {"secrets": wanted})
        assert answer.status_code == 400 and answer.json()["field"].startswith("secrets"), answer.text


async def test_anothers_secret_is_an_unknown_one(house: Any, keys: Any, token: str) -> None:
    session = (await house.create(keys.BOB))["id"]
    for ref in (token, "TOKEN", "sec_" + "0" * 24):
        for path, body in (
            ("/v1/sessions", {"image": "host", "network": "none"}),
            (f"/v1/sessions/{session}/exec", {"command": ["true"]}),
        ):
            answer = await house.call("POST", path, keys.BOB, json=body | {"secrets": [ref]})
            assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (404, "secret not found")
        with pytest.raises(Exception, match="404"):
            async with house.socket(f"/v1/sessions/{session}/exec?cmd=true&secret={ref}", keys.BOB):
                pass
