"""The account of a user who has logged in: the plan `user`, and keys that are the user's."""

from __future__ import annotations

from typing import Any

from tests.surfaces.computesdk.conftest import cheap_passwords, town

__all__ = ["cheap_passwords", "town"]


async def test_a_user_has_an_account_of_the_plan_user_and_keys_of_their_own(town: Any) -> None:
    user = await town.user()
    token = (await town.login())["access_token"]
    account = (await town.call("GET", "/v1/account", token)).json()
    assert account == {"tier": "user"}
    used = (await town.call("GET", "/v1/account/usage", token)).json()
    assert (used["concurrent_limit"], used["daily_limit"]) == (10, -1)
    narrowed = await town.call("PUT", "/v1/account/limits", token, json={"concurrent_requests_limit": 2})
    assert narrowed.json()["concurrent_requests_limit"] == 2
    made = await town.call("POST", "/v1/account/keys", token, json={"name": "robot", "custom_concurrent_limit": 1})
    assert made.status_code == 201, made.text
    key = made.json()
    record = await town.house.records.get_key(key["id"])
    assert (record.owner, record.parent, record.plan) == (user["id"], None, "user")
    listed = (await town.call("GET", "/v1/account/keys", token)).json()["keys"]
    assert [one["id"] for one in listed] == [key["id"]]
    body = {"image": "host", "network": "none", "resources": {"memoryMB": 256}}
    assert (await town.call("POST", "/v1/sessions", key["key"], json=body)).status_code == 201
    assert (await town.call("POST", "/v1/sessions", key["key"], json=body)).status_code == 429
    assert (await town.call("POST", "/v1/sessions", token, json=body)).status_code == 201
    assert (await town.call("POST", "/v1/sessions", token, json=body)).status_code == 429
    ended = await town.call("DELETE", f"/v1/account/keys/{key['id']}", token)
    assert ended.status_code == 204


async def test_a_credential_that_reaches_a_few_things_has_no_account(town: Any) -> None:
    owner = (await town.house.app.keys.create("holder")).text
    session = await town.house.create(owner)
    narrow = await town.call("POST", "/api/keys", owner, json={"name": "narrow", "resources": [session["id"]]})
    assert narrow.status_code == 201, narrow.text
    for method, path in (
        ("GET", "/v1/account"),
        ("GET", "/v1/account/usage/enhanced"),
        ("PUT", "/v1/account/limits"),
        ("GET", "/v1/account/keys"),
        ("POST", "/v1/account/keys"),
    ):
        answer = await town.call(method, path, narrow.json()["key"], json={"name": "x"} if method == "POST" else {})
        assert answer.status_code == 403, path
