"""What changes below a folder of a session, as server-sent events."""

from __future__ import annotations

import asyncio
from typing import Any


async def test_changes_are_told_as_they_happen_until_the_session_ends(house: Any) -> None:
    session = (await house.create())["id"]
    path = f"/v1/sessions/{session}"
    headers = house.headers("sk_" + "a1" * 32)
    told: list[str] = []
    async with asyncio.timeout(10):
        async with house.http.stream(
            "GET", f"{house.url}{path}/watch?path=/tmp&ignored=*.log", headers=headers
        ) as answer:
            assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                told.append(line)
                if line == 'data: {"path":"/tmp"}':
                    for name in ("a.log", "a.txt"):
                        wrote = await house.call("POST", f"{path}/files?path=/tmp/{name}", content=b"x")
                        assert wrote.status_code == 201
                elif line == 'data: {"event":"add","path":"/tmp/a.txt"}':
                    assert (await house.call("DELETE", path)).status_code == 200
    assert told[0] == "event: watching"
    assert told[told.index('data: {"event":"add","path":"/tmp/a.txt"}') - 1] == "event: change"
    assert "event: end" in told
    assert not any("a.log" in line for line in told)


async def test_what_cannot_be_watched_is_told_before_any_event(house: Any) -> None:
    session = (await house.create())["id"]
    missing = await house.call("GET", f"/v1/sessions/{session}/watch?path=/no/such")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    bobs = await house.call("GET", f"/v1/sessions/{session}/watch", "sk_" + "b0" * 32)
    assert bobs.status_code == 404
