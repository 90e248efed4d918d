"""Secrets over HTTP: what goes in never comes out, and each error is in the envelope of this dialect."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import pytest

from atoll.surfaces.computesdk.secrets import SecretAnswer

PATH = "/api/secrets"


async def create(house: Any, name: str = "TOKEN", value: str = "t0p", **more: Any) -> dict[str, Any]:
    answer = await house.call("POST", PATH, json={"name": name, "value": value, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_create_list_get_rotate_change_and_delete(house: Any) -> None:
    made = await create(house, hosts=["API.example.org"], description="d")
    SecretAnswer.model_validate(made)
    expected = ("TOKEN", 1, ["api.example.org"], "d", None, None)
    assert tuple(made[key] for key in ("name", "version", "hosts", "description", "group_id", "rotated_at")) == expected
    for ref in ("TOKEN", made["id"]):
        assert (await house.call("GET", f"{PATH}/{ref}")).json() == made
    assert (await house.call("GET", PATH)).json() == {"secrets": [made], "next": None}
    rotated = (await house.call("PUT", f"{PATH}/TOKEN", json={"value": "second"})).json()
    assert (rotated["version"], rotated["hosts"]) == (2, ["api.example.org"])
    changed = (await house.call("PATCH", f"{PATH}/{made['id']}", json={"hosts": [], "value": "third"})).json()
    assert (changed["version"], changed["hosts"], changed["description"]) == (3, [], "d")
    assert (await house.call("DELETE", f"{PATH}/TOKEN")).json() == {"deleted": True}
    gone = await house.call("GET", f"{PATH}/TOKEN")
    assert (gone.status_code, gone.json()) == (404, {"error": "not_found", "message": "secret not found"})


async def test_the_list_goes_on_where_a_page_ended_though_what_stood_there_is_gone(house: Any) -> None:
    for name in ("C", "A", "B"):
        await create(house, name)
    first = (await house.call("GET", f"{PATH}?limit=2")).json()
    assert [one["name"] for one in first["secrets"]] == ["A", "B"]
    await house.call("DELETE", f"{PATH}/B")
    rest = (await house.call("GET", f"{PATH}?limit=2&after={first['next']}")).json()
    assert ([one["name"] for one in rest["secrets"]], rest["next"]) == (["C"], None)
    assert (await house.call("GET", f"{PATH}?limit=1")).json()["next"] == f"A:{first['secrets'][0]['id']}"
    wrong = await house.call("GET", f"{PATH}?after=A")
    assert (wrong.status_code, "after" in wrong.json()["message"]) == (400, True)


async def test_no_answer_has_the_value(house: Any, keys: Any) -> None:
    value = secrets.token_hex(20)
    told = [(await create(house, value=value))["id"]]
    for method, path, body in (
        ("GET", PATH, None),
        ("GET", f"{PATH}/TOKEN", None),
        ("PUT", f"{PATH}/TOKEN", {"value": value}),
        ("PATCH", f"{PATH}/TOKEN", {"value": value, "description": "x"}),
        ("PATCH", f"{PATH}/TOKEN", {"value": value, "encoding": "base64!"}),
        ("POST", PATH, {"name": "TOKEN", "value": value}),
        ("POST", PATH, {"name": "a b", "value": value}),
        ("POST", PATH, {"name": "A", "value": value, "encoding": "base64"}),
        ("POST", PATH, {"name": "A", "value": [value]}),
        ("POST", PATH, {"name": "A", "value": {"x": value}, "hosts": value}),
        ("POST", PATH, {"name": "A", "value": value * 3000}),
        ("POST", PATH, value),
    ):
        answer = await house.call(method, path, json=body)
        told.append(answer.text + str(answer.headers))
    told.append((await house.call("GET", "/openapi.json")).text)
    told.append((await house.call("GET", "/metrics")).text)
    told.append(repr(await house.records.list_events()))
    assert value not in "\n".join(told)


async def test_a_value_of_bytes_comes_as_base64(house: Any) -> None:
    value = bytes(range(256))
    await create(house, value=base64.b64encode(value).decode(), encoding="base64")
    session = await house.create(secrets=[{"name": "TOKEN", "as": "file", "path": "/run/secrets/t"}])
    answer = await house.call("GET", f"/v1/sessions/{session['id']}/files?path=/run/secrets/t")
    assert answer.content == value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "A"},
        {"name": "A", "value": ""},
        {"name": "A", "value": 1},
        {"name": "A B", "value": "x"},
        {"name": "A", "value": "x", "encoding": "hex"},
        {"name": "A", "value": "???", "encoding": "base64"},
        {"name": "A", "value": "x", "hosts": ["a b"]},
        {"name": "A", "value": "x", "hosts": ["h"] * 33},
        {"name": "A", "value": "x", "more": 1},
        {"name": "A", "value": "x", "description": "d" * 1001},
    ],
)
async def test_a_wrong_body_is_told_in_the_envelope(house: Any, body: dict[str, Any]) -> None:
    answer = await house.call("POST", PATH, json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request"), answer.text
    assert set(answer.json()) == {"error", "message"}
    assert (await house.call("GET", PATH)).json() == {"secrets": [], "next": None}


async def test_a_name_is_taken_once_and_a_value_has_an_end(house: Any) -> None:
    await create(house)
    again = await house.call("POST", PATH, json={"name": "TOKEN", "value": "x"})
    assert (again.status_code, again.json()["error"]) == (409, "conflict")
    large = await house.call("POST", PATH, json={"name": "L", "value": "x" * (64 * 2**10 + 1)})
    assert (large.status_code, large.json()["error"]) == (413, "too_large")


async def test_anothers_secret_answers_as_an_unknown_one(house: Any, keys: Any) -> None:
    made = await create(house)
    for method, body in (("GET", None), ("PUT", {"value": "x"}), ("PATCH", {"value": "x"}), ("DELETE", None)):
        answers = [
            await house.call(method, f"{PATH}/{ref}", keys.BOB, json=body)
            for ref in (made["id"], "sec_" + "0" * 24, "TOKEN", "NOWHERE")
        ]
        assert {(one.status_code, one.content) for one in answers} == {(404, answers[0].content)}
    assert (await house.call("GET", PATH, keys.BOB)).json() == {"secrets": [], "next": None}
    assert (await house.call("GET", f"{PATH}/TOKEN")).json() == made


async def test_a_group_that_is_not_mine_is_an_unknown_one(house: Any) -> None:
    for group in ("grp_" + "0" * 24, "x"):
        for answer in (
            await house.call("GET", f"{PATH}?group_id={group}"),
            await house.call("POST", PATH, json={"name": "A", "value": "x", "group_id": group}),
        ):
            assert (answer.status_code, answer.json()["message"]) == (404, "group not found")


async def test_each_route_needs_its_scope(house: Any, keys: Any) -> None:
    await create(house)
    calls = {
        ("POST", PATH, keys.READER): 403,
        ("POST", PATH, keys.EXECUTOR): 403,
        ("GET", PATH, keys.READER): 200,
        ("GET", PATH, keys.EXECUTOR): 403,
        ("GET", PATH, keys.WRITER): 403,
        ("PUT", f"{PATH}/TOKEN", keys.READER): 403,
        ("PUT", f"{PATH}/TOKEN", keys.WRITER): 200,
        ("DELETE", f"{PATH}/TOKEN", keys.READER): 403,
        ("DELETE", f"{PATH}/TOKEN", None): 401,
    }
    for (method, path, key), status in calls.items():
        body = {"name": "B", "value": "x"} if method == "POST" else {"value": "x"} if method == "PUT" else None
        assert (await house.call(method, path, key, json=body)).status_code == status, (method, path)


async def test_a_groups_secret_outlives_its_new_name_and_leaves_with_the_member(house: Any, keys: Any) -> None:
    """A16: what belongs to the group follows the group, under whatever name, and nobody who has left it."""
    group = (await house.call("POST", "/api/groups", json={"name": "team"})).json()["id"]
    bob = house.keys.principals[keys.BOB].id
    added = await house.call("POST", f"/api/groups/{group}/members", json={"principal": bob, "role": "member"})
    assert added.status_code in (200, 201), added.text
    made = await create(house, group_id=group)
    assert (made["owner_id"], made["group_id"]) == (group, group)
    renamed = await house.call("PATCH", f"/api/groups/{group}", json={"name": "another"})
    assert renamed.status_code == 200, renamed.text
    assert (await house.call("GET", PATH, keys.BOB)).json() == {"secrets": [made], "next": None}
    session = await house.create(keys.BOB)
    done = await house.exec(session["id"], ["sh", "-c", "echo $TOKEN"], keys.BOB, secrets=[f"{group}/TOKEN"])
    assert done["stdout"] == "t0p\n"
    still = await house.call("DELETE", f"/api/groups/{group}")
    assert (still.status_code, "1 secret" in still.text) == (409, True)
    assert (await house.call("DELETE", f"/api/groups/{group}/members/{bob}")).status_code in (200, 204)
    body = {"command": ["true"], "secrets": [f"{group}/TOKEN"]}
    refused = await house.call("POST", f"/v1/sessions/{session['id']}/exec", keys.BOB, json=body)
    assert (refused.status_code, refused.json()["error"].partition(":")[0]) == (404, "secret not found")
    assert (await house.call("GET", f"{PATH}/{made['id']}", keys.BOB)).status_code == 404
