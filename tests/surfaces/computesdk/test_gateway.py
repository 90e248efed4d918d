"""ComputeSDK's gateway: sandboxes with a workspace of their own, by id and by name, with a token for their daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.surfaces.conftest import ALICE, BOB, House, Opener


@pytest.fixture
async def house(open_house: Opener) -> Any:
    async with open_house() as house:
        yield house


async def made(house: House, key: str = ALICE, **body: Any) -> dict[str, Any]:
    answer = await house.call("POST", "/v1/sandboxes", key, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()["data"]


async def test_a_sandbox_is_made_looked_at_with_its_token_and_destroyed(house: House) -> None:
    options = {"timeout": 60_000, "metadata": {"project": {"a": [1]}}, "envs": {"A": "b"}, "runtime": "node"}
    one = await made(house, **options)
    assert one["url"] == f"{house.url}/sb/{one['sandboxId']}"
    assert (one["provider"], one["status"], one["metadata"]) == ("atoll", "running", {"project": {"a": [1]}})
    got = (await house.call("GET", f"/v1/sandboxes/{one['sandboxId']}")).json()["data"]
    assert got == one  # the same token: it is not made anew with each look
    sandbox = house.records._sandboxes[one["sandboxId"]]
    assert sandbox.spec.resources.timeout_s == 60
    assert [mount.path for mount in sandbox.spec.workspaces] == ["/workspace"]
    ready = await house.call("GET", f"/sb/{one['sandboxId']}/ready", one["token"])
    assert ready.json() == {"ready": True, "healthy": True, "servers": [], "overlays": []}
    gone = await house.call("DELETE", f"/v1/sandboxes/{one['sandboxId']}")
    assert gone.json() == {"success": True}
    for method in ("GET", "DELETE"):
        again = await house.call(method, f"/v1/sandboxes/{one['sandboxId']}")
        assert again.status_code == 404
        assert again.json() == {"success": False, "error": "session not found", "code": "not_found"}
    assert (await house.call("GET", f"/sb/{one['sandboxId']}/ready", one["token"])).status_code == 401


async def test_an_access_token_gets_itself_is_listed_and_ended(house: House) -> None:
    one = await made(house)
    path = f"/v1/sandboxes/{one['sandboxId']}"
    assert (await house.call("GET", path, one["token"])).json()["data"]["token"] == one["token"]
    child = (await house.call("POST", f"/sb/{one['sandboxId']}/sandboxes", one["token"])).json()
    ready = (child["url"].removeprefix(house.url) + "/auth/status", child["token"])
    assert (await house.call("GET", *ready)).status_code == 200
    found = (await house.call("GET", f"{path}/tokens")).json()["data"]
    assert [sorted(token) for token in found] == [["createdAt", "expiresAt", "id", "maker"]]
    ended = f"{path}/tokens/{found[0]['id']}"
    for key, status in ((one["token"], 403), (BOB, 404), (ALICE, 200), (ALICE, 404)):
        assert (await house.call("DELETE", ended, key)).status_code == status
    assert (await house.call("GET", path, one["token"])).status_code == 401
    assert (await house.call("GET", *ready)).status_code == 401, "it ends with the token that made it"
    assert (await house.call("GET", f"{path}/tokens")).json() == {"success": True, "data": []}


async def left(house: House) -> list[str]:
    """The workspaces that there are, after a moment."""
    for _ in range(200):
        found = [one.id for one in await house.records.list_workspaces()]
        if not found:
            break
        await asyncio.sleep(0.01)
    return found


async def test_its_workspace_goes_with_it_unless_it_has_snapshots(house: House) -> None:
    one = await made(house)
    sandbox_id = one["sandboxId"]
    snapshot = await house.call(
        "POST", "/v1/snapshots", json={"sandboxId": sandbox_id, "name": "first", "metadata": {"why": "not"}}
    )
    assert snapshot.status_code == 201, snapshot.text
    kept = snapshot.json()["data"]
    assert kept["metadata"] == {"why": "not"}
    assert (await house.call("GET", "/v1/snapshots")).json()["data"] == [kept]
    assert (await house.call("GET", "/v1/snapshots", BOB)).json()["data"] == []
    await house.call("DELETE", f"/v1/sandboxes/{sandbox_id}")
    second = await made(house, snapshotId=kept["id"])
    spec = house.records._sandboxes[second["sandboxId"]].spec
    (workspace,) = [one for one in await house.records.list_workspaces() if one.id == spec.workspaces[0].workspace]
    assert workspace.forked_from is not None
    await house.call("DELETE", f"/v1/sandboxes/{second['sandboxId']}")
    theirs = await house.call("DELETE", f"/v1/snapshots/{kept['id']}", BOB)
    assert theirs.status_code == 404
    assert (await house.call("DELETE", f"/v1/snapshots/{kept['id']}")).json() == {"success": True}
    assert await left(house) == []


async def test_what_cannot_be_made_leaves_nothing(house: House) -> None:
    refused = {
        "image": ({"image": "python:3.9"}, 400),
        "directory": ({"directory": "/etc/x"}, 400),
        "metadata": ({"metadata": {"a": "x" * 20_000}}, 400),
        "snapshot": ({"snapshotId": "snap_2020_01_01_000000"}, 404),
        "namespace": ({"name": "a", "namespace": "child-of sess_000000000000"}, 400),
    }
    for field, (body, status) in refused.items():
        answer = await house.call("POST", "/v1/sandboxes", json=body)
        assert answer.status_code == status, (field, answer.text)
        assert field in answer.json()["error"]
    assert "host" in (await house.call("POST", "/v1/sandboxes", json={"image": "python:3.9"})).json()["error"]
    assert await left(house) == []
    assert not any(one.live for one in house.records._sandboxes.values())


async def test_find_or_create_makes_one_however_many_ask(house: House) -> None:
    asked = {"name": "dev", "namespace": "team"}
    answers = await asyncio.gather(*(house.call("POST", "/v1/sandboxes/find-or-create", json=asked) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6, [answer.text for answer in answers]
    found = {answer.json()["data"]["sandboxId"] for answer in answers}
    assert len(found) == 1
    seen = (await house.call("POST", "/v1/sandboxes/find", json=asked)).json()["data"]
    assert {seen["sandboxId"]} == found
    assert (seen["name"], seen["namespace"]) == ("dev", "team")
    taken = await house.call("POST", "/v1/sandboxes", json=asked)
    assert taken.status_code == 409
    for key, other in ((ALICE, {"name": "dev"}), (BOB, asked)):
        assert (await house.call("POST", "/v1/sandboxes/find", key, json=other)).json() == {
            "success": True,
            "data": None,
        }
    await house.call("DELETE", f"/v1/sandboxes/{seen['sandboxId']}")
    again = (await house.call("POST", "/v1/sandboxes/find-or-create", json=asked)).json()["data"]
    assert {again["sandboxId"]} != found
    await house.call("DELETE", f"/v1/sandboxes/{again['sandboxId']}")
    assert await left(house) == []


async def test_extend_moves_its_end(house: House) -> None:
    one = await made(house, timeout=60_000)
    for body, seconds in (({"duration": 120_000}, 120), (None, 900)):
        more = {} if body is None else {"json": body}
        answer = await house.call("POST", f"/v1/sandboxes/{one['sandboxId']}/extend", **more)
        assert answer.json() == {"success": True}, answer.text
        assert house.records._sandboxes[one["sandboxId"]].spec.resources.timeout_s == seconds


@pytest.mark.parametrize(
    ("directory", "mount", "work_dir"),
    [
        ("/app", "/app", "/app"),
        ("/home/user/", "/home/user", "/home/user"),
        ("sub/dir", "/workspace", "/workspace/sub/dir"),
        ("/workspace/x", "/workspace", "/workspace/x"),
    ],
)
async def test_its_workspace_is_where_the_directory_says(
    house: House, directory: str, mount: str, work_dir: str
) -> None:
    one = await made(house, directory=directory)
    spec = house.records._sandboxes[one["sandboxId"]].spec
    assert (spec.workspaces[0].path, spec.work_dir) == (mount, work_dir)


async def test_addresses_are_those_that_the_settings_say(open_house: Opener) -> None:
    async with open_house(server={"port": 0, "public_url": "https://api.example.com/"}) as house:
        one = await made(house)
        assert one["url"] == f"https://api.example.com/sb/{one['sandboxId']}"
    named = {"server": {"port": 0, "public_url": "https://api.example.com:8443"}, "previews": {"domain": "box.example"}}
    async with open_house(**named) as house:
        one = await made(house)
        assert one["url"] == f"https://{one['sandboxId'].replace('_', '-')}.box.example:8443"
