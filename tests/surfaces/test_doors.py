"""Who gets in: every route without a credential, with another tenant's, with too few scopes (A01-A03, W01, W02)."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

# The frozen list of what anybody may ask for. It may only shrink.
PUBLIC = {
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/openapi.yaml"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/docs/assets/{file}"),
}
BODIES: dict[str, Any] = {
    "createWorkspace": {"name": "another"},
    "changeWorkspace": {"description": "changed"},
    "forkWorkspace": {"name": "forked"},
    "mergeWorkspace": {"source": "docs"},
    "shareWorkspace": {"permission": "read"},
    "restoreWorkspace": {"revision": "1"},
    "restoreSnapshot": {"snapshot_id": "snap_2026_01_01_000000"},
    "createAgentWorkspace": {"name": "another"},
    "execInAgentWorkspace": {"command": "true"},
    "shareAgentWorkspace": {"target_agent_ids": ["key_000000000000"]},
    "createFilesystem": {"name": "another"},
    "restoreFilesystem": {"archive_id": "1"},
    "createSession": {"image": "host", "network": "none"},
    "exec": {"command": ["touch", "/tmp/did"]},
    "signalProcess": {"signal": "KILL"},
    "moveFile": {"from": "/tmp/a", "to": "/tmp/b"},
}
RAW_BODIES = {
    "importWorkspace": b"no archive",
    "syncMissing": b"i" * 32,
    "syncChunks": b"i" * 72,
    "syncFetch": b"i" * 32,
    "syncCommit": b"no entries",
}
QUERIES = {
    "readWorkspaceFile": "path=a",
    "syncCommit": "base=1",
    "readFile": "path=/tmp/a",
    "writeFile": "path=/tmp/b",
    "removeFile": "path=/tmp/a",
    "getPortUrl": "port=80",
    "execStream": "cmd=touch&cmd=/tmp/did",
}
# How each dialect says that there is no valid credential.
REFUSALS = (b'"code":"UNAUTHORIZED"', b'{"detail":"Authorization header must start with', b'{"error":"unauthorized",')
# Which of the scopes execute, read and write opens what, when it is a key's only one.
OPENS = {
    "createSession": "execute", "listSessions": "read", "getSession": "read", "killSession": "execute",
    "stopSession": "execute", "keepSessionAlive": "execute", "pauseSession": "execute", "resumeSession": "execute",
    "suspendSession": "execute",
    "getPortUrl": "read", "listTemplates": "read", "attachSession": "execute", "execStream": "execute",
    "exec": "execute", "listProcesses": "read", "signalProcess": "execute", "waitForProcess": "read",
    "readLogs": "read", "readFile": "read", "writeFile": "write", "removeFile": "write",
    "moveFile": "write",
    "createWorkspace": "write", "listWorkspaces": "read", "getWorkspace": "read", "changeWorkspace": "write",
    "deleteWorkspace": "write", "forkWorkspace": "read and write", "mergeWorkspace": "read and write",
    "verifyWorkspace": "write",
    "listCollaborators": "read", "shareWorkspace": "write", "unshareWorkspace": "write", "listRevisions": "read",
    "takeRevision": "write", "getRevision": "read", "listWorkspaceFiles": "read", "readWorkspaceFile": "read",
    "diffRevisions": "read", "restoreWorkspace": "write", "undoRevision": "write", "createWorkspaceSnapshot": "write",
    "listWorkspaceSnapshots": "read", "deleteWorkspaceSnapshot": "write", "exportWorkspace": "read",
    "importWorkspace": "write", "syncHead": "read", "syncEntries": "read", "syncMissing": "write",
    "syncChunks": "write", "syncFetch": "read", "syncCommit": "write",
    "createSnapshot": "write", "restoreSnapshot": "write", "listSnapshots": "read", "deleteSnapshot": "write",
    "createAgentWorkspace": "write", "listAgentWorkspaces": "read", "getAgentWorkspace": "read",
    "deleteAgentWorkspace": "write", "execInAgentWorkspace": "execute", "shareAgentWorkspace": "write",
    "listAgentCollaborators": "read", "revokeAgentShare": "write",
    "createFilesystem": "write", "listFilesystems": "read", "getFilesystem": "read", "deleteFilesystem": "write",
    "archiveFilesystem": "write", "listFilesystemArchives": "read", "restoreFilesystem": "write",
}  # fmt: skip
NOBODYS = {
    "id": "sess_0123456789ab",
    "ws": "ws_" + "5" * 32,
    "workspace": str(uuid.UUID(int=5)),
    "fs": "fs_" + "5" * 32,
}
MALFORMED = dict.fromkeys(NOBODYS, "nonsense")
OWN = {"rev": "HEAD", "snap": "snap_2026_01_01_000000", "principal": "key_000000000000", "agent": "key_000000000000"}


def operations(house: Any) -> Iterator[Any]:
    for route in house.app.routes:
        yield from route.operations


Ids = dict[str, str]  # what stands in the paths, by the parameter's name


def target(operation: Any, ids: Ids) -> str:
    path = operation.path
    for name, value in ({"pid": "main", "file": "start.js"} | OWN | ids).items():
        path = path.replace(f"{{{name}}}", value)
    return path + ("?" + QUERIES[operation.id] if operation.id in QUERIES else "")


async def knock(house: Any, operation: Any, ids: Ids, key: str | None, **more: Any) -> tuple[int, bytes]:
    """The status and body of the answer; of a WebSocket, before any upgrade (101: it was let in)."""
    where = target(operation, ids)
    if operation.method == "WEBSOCKET":
        try:
            async with house.socket(where, key, **more):
                return 101, b""
        except InvalidStatus as refused:
            return refused.response.status_code, refused.response.body
    body = {"content": RAW_BODIES[operation.id]} if operation.id in RAW_BODIES else {"json": BODIES.get(operation.id)}
    answer = await house.call(operation.method, where, key, **body, **more)
    return answer.status_code, answer.content


async def of_alice(house: Any) -> Ids:
    """A session and a workspace with a file and a snapshot, by every name that their paths know them by."""
    session = await house.create(command=["sleep", "60"])
    made = await house.call("POST", "/v1/workspaces", json={"name": "default"})
    assert made.status_code == 201, made.text
    digits = made.json()["id"].removeprefix("ws_")
    snapshot = await house.call("POST", f"/v1/workspaces/ws_{digits}/snapshots", json={"name": "first"})
    ids = {"id": session["id"], "ws": f"ws_{digits}", "workspace": str(uuid.UUID(digits)), "fs": f"fs_{digits}"}
    return ids | {"rev": snapshot.json()["revision"], "snap": snapshot.json()["id"]}


@pytest.fixture
async def patient_house(open_house: Any) -> AsyncIterator[Any]:
    """One that lets strangers knock at every door."""
    async with open_house(rates={"refused_burst": 1000}) as house:
        yield house


async def test_a01_only_the_public_list_opens_without_a_credential(patient_house: Any) -> None:
    house = patient_house
    ids = await of_alice(house)
    opened = set()
    for operation in operations(house):
        status, body = await knock(house, operation, ids, None)
        if status == 401:
            assert any(text in body for text in REFUSALS), operation.id
        else:
            opened.add((operation.method, operation.path))
    assert opened == PUBLIC == {(one.method, one.path) for one in operations(house) if one.public}
    assert [info["id"] for info in await processes(house, ids["id"])] == ["main"]


@pytest.mark.parametrize("credential", ["Bearer nonsense", "Basic c2s6", "Bearer", "bearer  ", "sk_", ""])
async def test_w01_no_stream_opens_for_a_bad_credential(house: Any, credential: str) -> None:
    session = await house.create(command=["sleep", "60"])
    for operation in operations(house):
        if operation.method == "WEBSOCKET":
            headers = {"authorization": credential}
            status, _ = await knock(house, operation, {"id": session["id"]}, None, additional_headers=headers)
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


def _unnamed(answer: tuple[int, bytes], asked: Ids) -> tuple[int, bytes]:
    """Without the id that was asked for, which an answer may repeat."""
    status, body = answer
    for text in asked.values():
        body = body.replace(text.encode(), b"<asked>")
    return status, body


async def test_a02_what_is_another_tenants_is_unknown(house: Any, keys: Any) -> None:
    ids = await of_alice(house)
    await house.call("POST", f"/v1/sessions/{ids['id']}/files?path=/tmp/a", content=b"alice's")
    before = (await house.call("GET", f"/v1/workspaces/{ids['ws']}")).json()
    for operation in operations(house):
        if any(f"{{{name}}}" in operation.path for name in NOBODYS):
            theirs, nobodys, malformed = [
                _unnamed(await knock(house, operation, asked, keys.BOB), asked) for asked in (ids, NOBODYS, MALFORMED)
            ]
            assert theirs == nobodys == malformed, operation.id
            assert theirs[0] == 404, operation.id
    for listed in ("/v1/sessions", "/v1/workspaces?shared=true", "/workspaces", "/api/filesystems"):
        found = (await house.call("GET", listed, keys.BOB)).json()
        assert found == [] or not any(found.values()), listed
    after = (await house.call("GET", f"/v1/sessions/{ids['id']}")).json()
    assert after["status"] == "running"
    assert (await house.call("GET", f"/v1/sessions/{ids['id']}/files?path=/tmp/a")).content == b"alice's"
    assert [info["id"] for info in await processes(house, ids["id"])] == ["main"]
    assert (await house.call("GET", f"/v1/workspaces/{ids['ws']}")).json() == before


async def test_a02_another_tenants_revisions_and_snapshots_are_unknown_in_ones_own_workspace(
    house: Any, keys: Any
) -> None:
    ids = await of_alice(house)
    for name in ("default", "bobs"):
        assert (await house.call("POST", "/v1/workspaces", keys.BOB, json={"name": name})).status_code == 201
    nobodys = {"rev": "rev_" + "5" * 24, "snap": "snap_2000_01_01_000000"}

    async def answers(rev: str, snap: str) -> list[tuple[int, str]]:
        calls = [
            ("GET", f"/v1/workspaces/bobs/revisions/{rev}", None),
            ("GET", f"/v1/workspaces/bobs/revisions/{snap}", None),
            ("GET", f"/v1/workspaces/bobs/files?revision={rev}", None),
            ("GET", f"/v1/workspaces/bobs/file?path=a&revision={rev}", None),
            ("GET", f"/v1/workspaces/bobs/diff?from={rev}", None),
            ("GET", f"/v1/workspaces/bobs/diff?from=HEAD&to={snap}", None),
            ("GET", f"/v1/workspaces/bobs/sync/entries?revision={rev}", None),
            ("GET", f"/v1/workspaces/bobs/sync/entries?since={rev}", None),
            ("GET", f"/v1/workspaces/bobs/export?revision={snap}", None),
            ("POST", "/v1/workspaces/bobs/restore", {"revision": rev}),
            ("POST", "/v1/workspaces/bobs/restore", {"revision": snap}),
            ("POST", "/v1/workspaces/bobs/fork", {"name": "stolen", "revision": rev}),
            ("POST", "/v1/workspaces/bobs/merge", {"source": "default", "revision": rev}),
            ("POST", "/v1/workspaces/bobs/merge", {"source": "default", "base": rev}),
            ("POST", "/v1/workspaces/bobs/merge", {"source": ids["ws"]}),
            ("DELETE", f"/v1/workspaces/bobs/snapshots/{snap}", None),
            ("POST", "/snapshot/restore", {"snapshot_id": snap}),
            ("DELETE", f"/snapshot/{snap}", None),
        ]
        found = [await house.call(method, path, keys.BOB, json=body) for method, path, body in calls]
        return [(one.status_code, one.text.replace(rev, "REV").replace(snap, "SNAP")) for one in found]

    theirs = await answers(ids["rev"], ids["snap"])
    assert theirs == await answers(**nobodys)
    assert {status for status, _ in theirs} == {404}
    kept = (await house.call("GET", f"/v1/workspaces/{ids['ws']}/snapshots")).json()["snapshots"]
    assert [one["id"] for one in kept] == [ids["snap"]]


@pytest.mark.parametrize("scope", ["execute", "read", "write"])
async def test_a03_a_scope_opens_its_own_operations_and_no_other(house: Any, keys: Any, scope: str) -> None:
    ids = await of_alice(house)
    await house.call("POST", f"/v1/sessions/{ids['id']}/files?path=/tmp/a", content=b"x")
    key = {"execute": keys.EXECUTOR, "read": keys.READER, "write": keys.WRITER}[scope]
    # Of those that this scope opens, what ends the session or the workspace comes last.
    last = ("killSession", "stopSession", "deleteWorkspace", "deleteAgentWorkspace", "deleteFilesystem")
    for operation in sorted(operations(house), key=lambda one: one.id in last):
        if operation.public or (operation.id == "waitForProcess" and scope == "read"):
            continue  # the wait would be a long one
        status, _ = await knock(house, operation, ids, key)
        assert (status != 403) == (OPENS[operation.id] == scope), (operation.id, status)


async def test_a_path_that_nobody_serves_is_a_404_in_the_envelope(house: Any) -> None:
    for path in ("/v1", "/v1/sessions/", "/v1/nothing", "//v1/sessions", "/v1/sessions/a/b/c/d"):
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


async def test_an_upgrade_of_what_is_no_websocket_is_a_wrong_method(house: Any, keys: Any) -> None:
    sockets = {operation.path for operation in operations(house) if operation.method == "WEBSOCKET"}
    others = {operation.path: operation for operation in operations(house) if operation.path not in sockets}
    assert {path for _, path in PUBLIC} <= set(others)
    ids = await of_alice(house)
    with capture_logs() as logs:
        for path, operation in others.items():
            key = None if operation.public else keys.OWNER
            with pytest.raises(InvalidStatus) as refused:
                async with house.socket(target(operation, ids), key):
                    pass
            answer = refused.value.response
            assert answer.status_code == 405 and answer.headers["allow"], path
            assert isinstance(json.loads(answer.body or b""), dict), path
    assert not [line for line in logs if line["log_level"] == "error"]
    assert {use[3] for use in house.keys.uses if use[0].startswith("key_0143")} == {405}


async def test_wrong_methods_of_public_paths_count_for_their_address_too(open_house: Any) -> None:
    async with open_house(rates={"address_per_s": 0.001, "address_burst": 2}) as house:
        proxied = {"x-forwarded-for": "203.0.113.5"}
        found = [(await house.call("PATCH", "/health", None, headers=proxied)).status_code for _ in range(3)]
        assert found == [405, 405, 429]
        with pytest.raises(InvalidStatus) as refused:
            async with house.socket("/health", None, additional_headers=proxied):
                pass
        assert refused.value.response.status_code == 429


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
