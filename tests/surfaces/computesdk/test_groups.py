"""Groups and the keys that keys make, over HTTP: their wire, and one rule behind every door."""

from __future__ import annotations

from typing import Any

import pytest

ALICE, BOB = "key_a11ce0000000", "key_b0b000000000"


async def test_a_group_is_made_changed_and_deleted(house: Any) -> None:
    made = await house.call("POST", "/api/groups", json={"name": "team", "description": "ours"})
    assert made.status_code == 201
    group = made.json()
    assert set(group) == {"id", "name", "description", "role", "created_at", "updated_at"}
    assert (group["name"], group["description"], group["role"]) == ("team", "ours", "admin")
    path = f"/api/groups/{group['id']}"
    assert (await house.call("GET", "/api/groups")).json() == {"groups": [group]}
    assert (await house.call("GET", path)).json() == group
    changed = (await house.call("PATCH", path, json={"name": "crew", "description": ""})).json()
    assert (changed["name"], changed["description"]) == ("crew", None)
    assert (await house.call("DELETE", path)).json() == {"deleted": True}
    gone = await house.call("GET", path)
    assert (gone.status_code, gone.json()) == (404, {"error": "not_found", "message": "group not found"})


async def test_members_come_change_and_go(house: Any, keys: Any) -> None:
    group = (await house.call("POST", "/api/groups", json={"name": "team"})).json()["id"]
    members = f"/api/groups/{group}/members"
    added = await house.call("POST", members, json={"principal": BOB})
    assert added.status_code == 201
    assert (added.json()["principal"], added.json()["role"]) == (BOB, "member")
    assert (await house.call("POST", members, json={"principal": BOB})).status_code == 409
    wrong = await house.call("POST", members, json={"principal": "key_000000000000"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "bad_request")
    assert (await house.call("PUT", f"{members}/{BOB}", json={"role": "viewer"})).json()["role"] == "viewer"
    assert (await house.call("PATCH", f"{members}/{BOB}", json={"role": "king"})).status_code == 400
    listed = (await house.call("GET", members, keys.BOB)).json()["members"]
    assert [(one["principal"], one["role"]) for one in listed] == [(ALICE, "admin"), (BOB, "viewer")]
    assert [one["name"] for one in listed] == ["alice", "bob"]
    assert (await house.call("DELETE", f"{members}/{ALICE}", keys.BOB)).status_code == 403
    assert (await house.call("DELETE", f"{members}/{BOB}", keys.BOB)).json() == {"removed": True}
    assert (await house.call("GET", members, keys.BOB)).status_code == 404
    assert (await house.call("DELETE", f"{members}/{ALICE}")).status_code == 409


async def test_a04_one_rule_behind_every_door_for_what_a_group_has(house: Any, keys: Any) -> None:
    """A viewer looks at the group's session over each surface, and runs nothing in it over any."""
    group = (await house.call("POST", "/api/groups", json={"name": "team"})).json()["id"]
    session = (await house.create(group=group, command=["sleep", "60"]))["id"]
    made = await house.call("POST", "/v1/workspaces", json={"name": "w", "group": group})
    workspace = made.json()["id"].removeprefix("ws_")
    doors = [
        ("GET", f"/v1/sessions/{session}", None),
        ("GET", f"/v1/workspaces/ws_{workspace}", None),
        ("GET", f"/workspaces/ws_{workspace}", None),
        ("GET", f"/api/filesystems/fs_{workspace}", None),
        ("POST", f"/v1/sessions/{session}/exec", {"command": "true"}),
        ("POST", f"/workspaces/ws_{workspace}/exec", {"command": "true"}),
        ("POST", f"/api/filesystems/fs_{workspace}/archive", {}),
        ("DELETE", f"/v1/workspaces/ws_{workspace}", None),
        ("DELETE", f"/v1/sessions/{session}", None),
    ]

    async def verdicts() -> list[int]:
        return [(await house.call(method, path, keys.BOB, json=body)).status_code for method, path, body in doors]

    assert await verdicts() == [404] * len(doors)
    await house.call("POST", f"/api/groups/{group}/members", json={"principal": BOB, "role": "viewer"})
    assert await verdicts() == [200] * 4 + [403] * 5
    with pytest.raises(Exception, match="403"):
        async with house.socket(f"/v1/sessions/{session}/exec?cmd=true", keys.BOB):
            pass


async def test_a_minted_key_is_shown_once_and_does_less(open_house: Any) -> None:
    from atoll.testing.memory_records import MemoryRecords
    from tests.security.test_tenancy import RealKeys

    records = MemoryRecords()
    keys = RealKeys(records)
    async with open_house(records=records, keys=keys) as house:
        root = (await keys.create("root")).text
        session = (await house.create(root))["id"]
        made = await house.call(
            "POST", "/api/keys", root, json={"name": "narrow", "scopes": ["read"], "resources": [session]}
        )
        assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
        minted = made.json()
        text = minted.pop("key")
        assert (await house.call("GET", f"/api/keys/{minted['id']}", root)).json().items() >= {
            "id": minted["id"], "scopes": ["read"], "resources": [session], "parent": minted["parent"],
        }.items()  # fmt: skip
        assert (await house.call("GET", f"/v1/sessions/{session}", text)).status_code == 200
        assert (await house.call("DELETE", f"/v1/sessions/{session}", text)).status_code == 403
        wider = await house.call("POST", "/api/keys", text, json={"name": "wide", "scopes": ["write"]})
        assert (wider.status_code, "scopes beyond your own: write" in wider.json()["message"]) == (400, True)
        assert (await house.call("DELETE", f"/api/keys/{minted['id']}", root)).json()["revoked_at"] is not None
        assert (await house.call("GET", f"/v1/sessions/{session}", text)).status_code == 401
