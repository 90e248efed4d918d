"""Who gets in: every route without a credential, with another tenant's, with too few scopes (A01-A03, W01, W02)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

# The frozen list of what anybody may ask for. It may only shrink.
PUBLIC = {
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/openapi.yaml"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/docs/assets/{file}"),
}
BODIES = {
    "createSession": {"image": "host", "network": "none"},
    "exec": {"command": ["touch", "/tmp/did"]},
    "signalProcess": {"signal": "KILL"},
    "moveFile": {"from": "/tmp/a", "to": "/tmp/b"},
}
QUERIES = {
    "readFile": "path=/tmp/a",
    "writeFile": "path=/tmp/b",
    "removeFile": "path=/tmp/a",
    "getPortUrl": "port=80",
    "execStream": "cmd=touch&cmd=/tmp/did",
}
# Which of the scopes execute, read and write opens what, when it is a key's only one.
OPENS = {
    "createSession": "execute", "listSessions": "read", "getSession": "read", "killSession": "execute",
    "stopSession": "execute", "keepSessionAlive": "execute", "pauseSession": "execute", "resumeSession": "execute",
    "getPortUrl": "read", "listTemplates": "read", "attachSession": "execute", "execStream": "execute",
    "exec": "execute", "listProcesses": "read", "signalProcess": "execute", "waitForProcess": "read",
    "readLogs": "read", "readFile": "read", "writeFile": "write", "removeFile": "write",
    "moveFile": "write",
}  # fmt: skip


def operations(house: Any) -> Iterator[Any]:
    for route in house.app.routes:
        yield from route.operations


def target(operation: Any, session_id: str) -> str:
    path = operation.path.replace("{id}", session_id).replace("{pid}", "main").replace("{file}", "start.js")
    return path + ("?" + QUERIES[operation.id] if operation.id in QUERIES else "")


async def knock(house: Any, operation: Any, session_id: str, key: str | None, **more: Any) -> tuple[int, bytes]:
    """The status and body of the answer; of a WebSocket, before any upgrade (101: it was let in)."""
    where = target(operation, session_id)
    if operation.method == "WEBSOCKET":
        try:
            async with house.socket(where, key, **more):
                return 101, b""
        except InvalidStatus as refused:
            return refused.response.status_code, refused.response.body
    answer = await house.call(operation.method, where, key, json=BODIES.get(operation.id), **more)
    return answer.status_code, answer.content


async def test_a01_only_the_public_list_opens_without_a_credential(house: Any, keys: Any) -> None:
    session = await house.create(command=["sleep", "60"])
    opened = set()
    for operation in operations(house):
        status, body = await knock(house, operation, session["id"], None)
        if status == 401:
            assert b'"code":"UNAUTHORIZED"' in body, operation.id
        else:
            opened.add((operation.method, operation.path))
    assert opened == PUBLIC == {(one.method, one.path) for one in operations(house) if one.public}
    assert [info["id"] for info in await processes(house, session["id"])] == ["main"]


@pytest.mark.parametrize("credential", ["Bearer nonsense", "Basic c2s6", "Bearer", "bearer  ", "sk_", ""])
async def test_w01_no_stream_opens_for_a_bad_credential(house: Any, credential: str) -> None:
    session = await house.create(command=["sleep", "60"])
    for operation in operations(house):
        if operation.method == "WEBSOCKET":
            headers = {"authorization": credential}
            status, _ = await knock(house, operation, session["id"], None, additional_headers=headers)
            assert status == 401
    assert [info["id"] for info in await processes(house, session["id"])] == ["main"]


async def test_w01_a_key_in_the_query_opens_nothing(house: Any, keys: Any) -> None:
    session = await house.create()
    answer = await house.call("GET", f"/v1/sessions/{session['id']}?api_key={keys.ALICE}", None)
    assert answer.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=true&api_key={keys.ALICE}", None):
            pass
    assert refused.value.response.status_code == 401


async def test_w02_a_cookie_authenticates_nobody_from_any_origin(house: Any, keys: Any) -> None:
    session = await house.create()
    path = f"/v1/sessions/{session['id']}/exec?cmd=true"
    for origin in ("http://evil.example", "null", house.url):
        cookie = f"authorization=Bearer {keys.ALICE}; api_key={keys.ALICE}; session={keys.ALICE}"
        with pytest.raises(InvalidStatus) as refused:
            async with house.socket(path, None, additional_headers={"cookie": cookie, "origin": origin}):
                pass
        assert refused.value.response.status_code == 401
    async with house.socket(path, additional_headers={"origin": "http://evil.example"}) as socket:
        assert [message async for message in socket]  # the header alone decides


async def test_a02_another_tenants_session_is_an_unknown_one(house: Any, keys: Any) -> None:
    session = await house.create(command=["sleep", "60"])
    await house.call("POST", f"/v1/sessions/{session['id']}/files?path=/tmp/a", content=b"alice's")
    for operation in operations(house):
        if "{id}" in operation.path:
            theirs = await knock(house, operation, session["id"], keys.BOB)
            nobodys = await knock(house, operation, "sess_0123456789ab", keys.BOB)
            malformed = await knock(house, operation, "nonsense", keys.BOB)
            assert theirs == nobodys == malformed, operation.id
            assert theirs[0] == 404, operation.id
    assert (await house.call("GET", "/v1/sessions", keys.BOB)).json() == {"sessions": []}
    after = (await house.call("GET", f"/v1/sessions/{session['id']}")).json()
    assert after["status"] == "running"
    assert (await house.call("GET", f"/v1/sessions/{session['id']}/files?path=/tmp/a")).content == b"alice's"
    assert [info["id"] for info in await processes(house, session["id"])] == ["main"]


@pytest.mark.parametrize("scope", ["execute", "read", "write"])
async def test_a03_a_scope_opens_its_own_operations_and_no_other(house: Any, keys: Any, scope: str) -> None:
    session = await house.create(command=["sleep", "60"])
    await house.call("POST", f"/v1/sessions/{session['id']}/files?path=/tmp/a", content=b"x")
    key = {"execute": keys.EXECUTOR, "read": keys.READER, "write": keys.WRITER}[scope]
    last = ("killSession", "stopSession")  # of those that this scope opens, what ends the session
    for operation in sorted(operations(house), key=lambda one: one.id in last):
        if operation.public or (operation.id == "waitForProcess" and scope == "read"):
            continue  # the wait would be a long one
        status, _ = await knock(house, operation, session["id"], key)
        assert (status != 403) == (OPENS[operation.id] == scope), (operation.id, status)


async def test_a_path_that_nobody_serves_is_a_404_in_the_envelope(house: Any) -> None:
    for path in ("/", "/v1", "/v1/sessions/", "/v1/nothing", "//v1/sessions", "/v1/sessions/a/b/c/d"):
        answer = await house.call("GET", path, None)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND"), path
    with pytest.raises(InvalidStatus) as refused:
        async with house.socket("/v1/nothing"):
            pass
    assert refused.value.response.status_code == 404


async def test_a_wrong_method_is_told_only_to_those_who_are_let_in(house: Any) -> None:
    assert (await house.call("PATCH", "/v1/sessions", None)).status_code == 401
    answer = await house.call("PATCH", "/v1/sessions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.json()["code"] == "METHOD_NOT_ALLOWED"
    stream = await house.call("GET", "/v1/sessions/sess_0123456789ab/attach")
    assert (stream.status_code, stream.headers["upgrade"]) == (426, "websocket")


async def test_authorisation_goes_by_the_matched_route_and_not_by_the_host_header(house: Any) -> None:
    answer = await house.call("GET", "/v1/sessions", None, headers={"host": "x/health?"})
    assert answer.status_code in (400, 401)


async def processes(house: Any, session_id: str) -> list[dict[str, Any]]:
    return (await house.call("GET", f"/v1/sessions/{session_id}/processes")).json()["processes"]


async def test_an_unknown_query_parameter_is_named_to_those_who_are_let_in(house: Any) -> None:
    session = await house.create()
    assert (await house.call("DELETE", f"/v1/sessions/{session['id']}?remvoe=true", None)).status_code == 401
    answer = await house.call("DELETE", f"/v1/sessions/{session['id']}?remvoe=true")
    assert (answer.status_code, answer.json()["field"]) == (400, "remvoe")
    assert (await house.call("GET", f"/v1/sessions/{session['id']}")).json()["status"] == "running"
