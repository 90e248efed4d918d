"""Computes: sandboxes with a file system, of oneself or of a group, whose members may what their role lets them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.domain.ids import compute_id
from tests.surfaces.conftest import ALICE, BOB, House, Opener

BODY = {"name": "my-instance", "network": "none"}


@pytest.fixture
async def house(open_house: Opener) -> Any:
    async with open_house(images={"aliases": {"python:3.9": "host"}}) as house:
        yield house


async def made(house: House, key: str = ALICE, **body: Any) -> dict[str, Any]:
    answer = await house.call("POST", "/api/computes", key, json=BODY | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_compute_has_its_file_system_and_its_image_and_goes_the_whole_way(house: House) -> None:
    fs = (await house.call("POST", "/api/filesystems", json={"name": "files"})).json()["id"]
    bounds = {"cpu_millis": 250, "memory_mb": 128}
    one = await made(house, image_name="python:3.9", filesystem_id=fs, env={"A": "b"}, resources=bounds)
    assert one["id"] == compute_id(one["sandbox_id"])
    assert (one["name"], one["status"], one["filesystem_id"], one["group_id"]) == ("my-instance", "running", fs, None)
    assert (one["resources"]["cpu_millis"], one["resources"]["memory_mb"]) == (250, 128)
    assert one["terminal_url"] == f"ws{house.url.removeprefix('http')}/compute/{one['id']}/terminal"
    assert one["url"] == f"{house.url}/sb/{one['sandbox_id']}"
    (mount,) = house.records._sandboxes[one["sandbox_id"]].spec.workspaces
    assert (mount.path, mount.read_only) == ("/workspace", False)
    for spelling in (one["id"], one["sandbox_id"], one["sandbox_id"].replace("_", "-")):
        assert (await house.call("GET", f"/api/computes/{spelling}")).json() == one
    assert (await house.call("GET", "/api/computes?status=running")).json() == {"computes": [one]}
    assert (await house.call("GET", "/api/computes?status=stopped")).json() == {"computes": []}
    stopped = (await house.call("POST", f"/api/computes/{one['id']}/stop")).json()
    assert stopped["status"] == "stopped"
    assert (await house.call("POST", f"/api/computes/{one['id']}/stop")).status_code == 409
    found = (await house.call("GET", f"/api/computes/{one['id']}/events?order=newest")).json()["events"]
    assert [event["action"] for event in found][-2:] == ["sandbox.started", "sandbox.created"]
    same = (await house.call("GET", f"/api/events?target={one['sandbox_id']}&order=newest")).json()["events"]
    assert found == same
    assert (await house.call("DELETE", f"/api/computes/{one['id']}")).json() == {"deleted": True}
    gone = await house.call("GET", f"/api/computes/{one['id']}")
    assert (gone.status_code, gone.json()["error"]) == (404, "not_found")
    assert (await house.call("GET", f"/api/filesystems/{fs}")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"image_name": "ruby:3"}, 400, "python:3.9"),
        ({"filesystem_id": "fs_" + "0" * 32}, 404, "workspace"),
        ({"group_id": "grp_" + "0" * 24}, 404, "group"),
        ({"network": "all"}, 400, "network"),
        ({"ports": [0]}, 400, "ports"),
        ({"name": ""}, 400, "name"),
        ({"image": "host"}, 400, "image"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
async def test_what_is_wrong_is_named(house: House, body: dict[str, Any], status: int, said: str) -> None:
    answer = await house.call("POST", "/api/computes", json=BODY | body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["message"]
    assert not house.records._sandboxes


async def test_a_groups_compute_is_its_members_by_their_role(house: House) -> None:
    group = (await house.call("POST", "/api/groups", json={"name": "team"})).json()["id"]
    one = await made(house, group_id="team")
    assert (one["group_id"], one["owner_id"]) == (group, group)
    path = f"/api/computes/{one['id']}"
    assert (await house.call("GET", path, BOB)).status_code == 404
    bob = house.keys.principals[BOB].id
    members = f"/api/groups/{group}/members"
    await house.call("POST", members, json={"principal": bob, "role": "viewer"})
    assert (await house.call("GET", path, BOB)).json() == one
    assert (await house.call("GET", f"/api/computes?group_id={group}", BOB)).json() == {"computes": [one]}
    assert (await house.call("DELETE", path, BOB)).status_code == 403
    assert (await house.call("POST", "/api/computes", BOB, json=BODY | {"group_id": group})).status_code == 403
    await house.call("PATCH", f"{members}/{bob}", json={"role": "member"})
    events = await house.call("GET", f"{path}/events", BOB)
    assert "sandbox.created" in {event["action"] for event in events.json()["events"]}
    assert (await house.call("DELETE", path, BOB)).json() == {"deleted": True}


async def test_what_is_listed_of_a_group_is_no_shorter_for_what_is_listed_beside_it(open_house: Opener) -> None:
    async with open_house(limits={"list_items": 2}) as house:
        group = (await house.call("POST", "/api/groups", json={"name": "team"})).json()["id"]
        older = [await made(house, group_id=group) for _ in range(2)]
        newer = [await made(house) for _ in range(2)]

        async def listed(asked: str) -> list[str]:
            answer = await house.call("GET", f"/api/computes{asked}")
            return [one["id"] for one in answer.json()["computes"]]

        assert await listed("") == [one["id"] for one in reversed(newer)]
        assert await listed(f"?group_id={group}") == [one["id"] for one in reversed(older)]
        assert await listed("?group_id=grp_" + "0" * 24) == []


async def test_the_event_stream_tells_of_computes(house: House) -> None:
    async with house.http.stream(
        "GET", f"{house.url}/api/events/stream?action=sandbox.*", headers=house.headers(ALICE)
    ) as stream:
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("retry:")
        one = await made(house)
        async with asyncio.timeout(10):
            async for line in lines:
                if line.startswith("data:") and one["sandbox_id"] in line:
                    break
