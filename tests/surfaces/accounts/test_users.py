"""The account of a user who has logged in: the plan `user`, and keys that are the user's."""

from __future__ import annotations

from typing import Any

from atoll.domain.errors import Unavailable
from atoll.services.identity.capabilities import CHILDREN_MAX
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


async def test_a12_a_narrow_key_of_a_user_has_its_own_keys_alone_and_no_way_to_a_wide_one(town: Any) -> None:
    await town.user()
    token = (await town.login())["access_token"]
    wide = (await town.call("POST", "/api/keys", token, json={"name": "wide"})).json()
    body = {"name": "narrow", "scopes": ["read", "write"], "expires_in_days": 1}
    narrow = (await town.call("POST", "/api/keys", token, json=body)).json()
    assert narrow["parent"] is None
    own = (await town.call("POST", "/v1/account/keys", narrow["key"], json={"name": "child"})).json()
    listed = (await town.call("GET", "/v1/account/keys", narrow["key"])).json()["keys"]
    assert [one["id"] for one in listed] == [narrow["id"], own["id"]]
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/rotate")):
        path = f"/v1/account/keys/{wide['id']}{path}"
        answer = await town.call(method, path, narrow["key"], json={"name": "mine"})
        assert answer.status_code == 404, (method, answer.text)
    assert (await town.call("GET", "/v1/sessions", wide["key"])).status_code == 200
    # the user themselves has all of them
    assert len((await town.call("GET", "/v1/account/keys", token)).json()["keys"]) == 3
    assert (await town.call("POST", f"/v1/account/keys/{wide['id']}/rotate", token)).status_code == 200


async def test_a_user_makes_a_hundred_keys_on_whichever_route(town: Any) -> None:
    user = await town.user()
    token = (await town.login())["access_token"]
    routes = ("/api/keys", "/auth/api-keys", "/v1/account/keys")
    answers = [await town.call("POST", routes[at % 3], token, json={"name": f"k{at}"}) for at in range(CHILDREN_MAX)]
    assert {answer.status_code for answer in answers} == {201}
    for route in routes:
        refused = await town.call("POST", route, token, json={"name": "one more"})
        assert refused.status_code == 429, refused.text
    assert len(await town.house.records.list_keys(owner=user["id"])) == CHILDREN_MAX


async def test_a_key_is_never_made_or_changed_without_the_limits_that_it_was_to_have(town: Any) -> None:
    user = await town.user()
    token, records = (await town.login())["access_token"], town.house.records
    body = {"name": "robot", "custom_concurrent_limit": 1}
    made = (await town.call("POST", "/v1/account/keys", token, json=body)).json()
    [event] = await records.list_events(target=made["id"])
    assert (event.action, event.detail["quotas"]) == ("key.created", {"concurrent_sandboxes": 1})
    own = (await town.house.app.keys.create("account", plan="free")).text
    account = (await town.call("GET", "/v1/account/keys", own)).json()["keys"][0]
    path = f"/v1/account/keys/{account['id']}"
    refused = await town.call("PUT", path, own, json={"name": "renamed", "custom_daily_limit": 1})
    assert refused.status_code == 403
    assert (await town.call("GET", path, own)).json()["name"] == "account"

    async def down(*_: Any, **__: Any) -> None:
        raise Unavailable("the records are down")

    # where quotas of their own transaction cannot be set, a key has them nevertheless
    records.put_quotas = records.change_quotas = down
    again = await town.call("POST", "/v1/account/keys", token, json=body)
    assert again.status_code == 201 and again.json()["custom_concurrent_limit"] == 1
    path = f"/v1/account/keys/{made['id']}"
    changed = await town.call("PUT", path, token, json={"name": "renamed", "custom_concurrent_limit": 2})
    assert (changed.json()["name"], changed.json()["custom_concurrent_limit"]) == ("renamed", 2)
    assert len(await records.list_keys(owner=user["id"])) == 2
