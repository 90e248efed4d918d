"""Users log in, refresh, log out and make keys, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atoll.domain.key import KeyKind
from atoll.surfaces import key_watch
from atoll.testing.memory_records import MemoryRecords
from tests.surfaces.computesdk.conftest import PASSWORD, RealKeys, Town

WRONG = {"error": "unauthorized", "message": "The username or the password is wrong."}


async def test_a_user_logs_in_and_their_token_opens_every_surface(town: Town) -> None:
    made = await town.user(name="Ann")
    answer = await town.call("POST", "/auth/login", json={"username": "Ann", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 900)
    me = (await town.call("GET", "/auth/me", tokens["access_token"])).json()
    assert (me["id"], me["kind"], me["username"], me["name"], me["admin"]) == (made["id"], "user", "ann", "Ann", False)
    assert me["credential"].startswith("login_") and me["scopes"] == ["execute", "read", "write"]
    for path in ("/v1/sessions", "/api/filesystems", "/workspaces"):
        assert (await town.call("GET", path, tokens["access_token"])).status_code == 200, path
    sandbox = await town.house.create(tokens["access_token"])
    assert (await town.house.records.get_sandbox(sandbox["id"])).owner == made["id"]


async def test_the_first_login_makes_one_default_workspace(town: Town) -> None:
    await town.user()
    first, second = await asyncio.gather(town.login(), town.login())
    token = (await town.login())["access_token"]
    listed = (await town.call("GET", "/api/filesystems", token)).json()["filesystems"]
    assert [one["name"] for one in listed] == ["default"]
    assert (await town.call("POST", "/snapshot/create", first["access_token"])).status_code == 200
    assert (await town.call("GET", "/snapshot/list", second["access_token"])).status_code == 200


@pytest.mark.parametrize(
    ("username", "password"), [("ann", "wrong horse battery"), ("ben", PASSWORD), ("ann", "x"), ("a\0b", PASSWORD)]
)
async def test_what_is_wrong_with_a_login_is_not_told(town: Town, username: str, password: str) -> None:
    await town.user()
    answer = await town.call("POST", "/auth/login", json={"username": username, "password": password})
    assert (answer.status_code, answer.json()) == (401, WRONG)


async def test_a_user_without_a_password_or_disabled_does_not_log_in(town: Town) -> None:
    await town.call("POST", "/api/users", town.admin, json={"username": "ann"})
    for password in ("", " ", PASSWORD):
        answer = await town.call("POST", "/auth/login", json={"username": "ann", "password": password})
        assert answer.status_code in (400, 401)
    await town.user("ben")
    await town.call("PATCH", "/api/users/ben", town.admin, json={"disabled": True})
    answer = await town.call("POST", "/auth/login", json={"username": "ben", "password": PASSWORD})
    assert (answer.status_code, answer.json()) == (401, WRONG)


@pytest.mark.parametrize(
    "body",
    [{}, {"username": "ann"}, {"username": 1, "password": "x"}, {"username": "a", "password": "b", "c": 1}, [], "x"],
)
async def test_a_wrong_body_is_400_and_never_repeated(town: Town, body: Any) -> None:
    answer = await town.call("POST", "/auth/login", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_a11_a_refresh_token_is_good_once_and_a_replay_ends_the_login(town: Town) -> None:
    await town.user()
    first = await town.login()
    second = (await town.call("POST", "/auth/refresh", json={"refresh_token": first["refresh_token"]})).json()
    assert set(second) == set(first) and second["refresh_token"] != first["refresh_token"]
    assert (await town.call("GET", "/auth/me", second["access_token"])).status_code == 200
    replayed = await town.call("POST", "/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert replayed.status_code == 401
    assert (
        await town.call("POST", "/auth/refresh", json={"refresh_token": second["refresh_token"]})
    ).status_code == 401
    for tokens in (first, second):
        assert (await town.call("GET", "/auth/me", tokens["access_token"])).status_code == 401


async def test_a11_tokens_are_of_one_kind_each(town: Town) -> None:
    await town.user()
    tokens = await town.login()
    swapped = await town.call("POST", "/auth/refresh", json={"refresh_token": tokens["access_token"][:250]})
    assert swapped.status_code == 401
    assert (await town.call("GET", "/auth/me", tokens["refresh_token"])).status_code == 401


async def test_a11_after_a_logout_neither_token_opens_anything(town: Town) -> None:
    await town.user()
    for by in ("access", "refresh"):
        tokens = await town.login()
        body = {"json": {"refresh_token": tokens["refresh_token"]}} if by == "refresh" else {}
        key = tokens["access_token"] if by == "access" else None
        assert (await town.call("POST", "/auth/logout", key, **body)).json() == {"logged_out": True}
        assert (await town.call("GET", "/auth/me", tokens["access_token"])).status_code == 401
        again = await town.call("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert again.status_code == 401
        assert (await town.call("POST", "/auth/logout", key, **body)).status_code == 401
    other = await town.login()
    assert (await town.call("GET", "/auth/me", other["access_token"])).status_code == 200


async def test_a_logout_without_a_login_is_401_and_a_key_is_none(town: Town) -> None:
    for key in (None, "nonsense", town.admin, "ey.ey.ey"):
        assert (await town.call("POST", "/auth/logout", key)).status_code == 401
    answer = await town.call("POST", "/auth/logout", json={"refresh_token": "rt_" + "0" * 64})
    assert answer.status_code == 401


async def test_a_disabled_user_s_tokens_and_keys_open_nothing_and_enabled_ones_keys_do_again(town: Town) -> None:
    made = await town.user()
    tokens = await town.login()
    key = (await town.call("POST", "/auth/api-keys", tokens["access_token"], json={"name": "ci"})).json()["key"]
    assert (await town.call("GET", "/v1/sessions", key)).status_code == 200
    path = f"/api/users/{made['id']}"
    assert (await town.call("PATCH", path, town.admin, json={"disabled": True})).json()["disabled"] is True
    for text in (key, tokens["access_token"]):
        assert (await town.call("GET", "/v1/sessions", text)).status_code == 401
    assert (
        await town.call("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    ).status_code == 401
    await town.call("PATCH", path, town.admin, json={"disabled": False})
    assert (await town.call("GET", "/v1/sessions", key)).status_code == 200
    assert (await town.call("GET", "/v1/sessions", tokens["access_token"])).status_code == 401  # its login ended


async def test_a07_a_deleted_user_s_tokens_and_keys_open_nothing(town: Town) -> None:
    made = await town.user()
    tokens = await town.login()
    key = (await town.call("POST", "/auth/api-keys", tokens["access_token"], json={"name": "ci"})).json()["key"]
    path = f"/api/users/{made['id']}"
    filesystem = (await town.call("POST", "/api/filesystems", key, json={"name": "kept"})).json()
    assert (await town.call("DELETE", path, town.admin)).status_code == 409  # it is nobody else's
    await town.call("DELETE", f"/api/filesystems/{filesystem['id']}", key)
    assert (await town.call("DELETE", path, town.admin)).json() == {"deleted": True}
    assert (await town.call("DELETE", path, town.admin)).status_code == 404
    for text in (key, tokens["access_token"]):
        assert (await town.call("GET", "/v1/sessions", text)).status_code == 401


async def test_a_new_password_ends_every_login(town: Town) -> None:
    made = await town.user()
    tokens = await town.login()
    short = await town.call("POST", f"/api/users/{made['id']}/password", town.admin, json={"password": "short"})
    assert (short.status_code, "12 to 1024" in short.json()["message"]) == (400, True)
    body = {"password": "another horse battery"}
    assert (await town.call("POST", "/api/users/ann/password", town.admin, json=body)).status_code == 200
    assert (await town.call("GET", "/auth/me", tokens["access_token"])).status_code == 401
    assert (await town.call("POST", "/auth/login", json={"username": "ann", "password": PASSWORD})).status_code == 401
    tokens = await town.login(password="another horse battery")
    body = {"old_password": "wrong", "new_password": "third horse battery"}
    assert (await town.call("POST", "/auth/password", tokens["access_token"], json=body)).status_code == 403
    body["old_password"] = "another horse battery"
    assert (await town.call("POST", "/auth/password", tokens["access_token"], json=body)).status_code == 200
    assert (await town.call("GET", "/auth/me", tokens["access_token"])).status_code == 401
    await town.login(password="third horse battery")


async def test_only_administrators_see_users(town: Town) -> None:
    made = await town.user()
    await town.user("root", admin=True)
    plain, root = (await town.login())["access_token"], (await town.login("root"))["access_token"]
    routes = [("GET", "/api/users", None), ("POST", "/api/users", {"username": "eve"})]
    for user in (made["id"], "nobody"):
        path = f"/api/users/{user}"
        routes += [("GET", path, None), ("PATCH", path, {}), ("DELETE", path, None)]
        routes += [("POST", path + "/password", {"password": PASSWORD})]
    answers = [await town.call(method, path, plain, json=body) for method, path, body in routes]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1
    listed = (await town.call("GET", "/api/users?limit=1", root)).json()["users"]
    assert [one["username"] for one in listed] == ["ann"]
    listed = (await town.call("GET", "/api/users?after=ann", root)).json()["users"]
    assert [one["username"] for one in listed] == ["root"]
    assert "password" not in (await town.call("GET", "/api/users/ann", root)).text


async def test_an_administrator_s_own_key_administers_nothing(town: Town) -> None:
    await town.user("root", admin=True)
    token = (await town.login("root"))["access_token"]
    body = {"name": "ci", "scopes": ["read", "admin"]}
    key = (await town.call("POST", "/auth/api-keys", token, json=body)).json()["key"]
    assert (await town.call("GET", "/api/users", key)).status_code == 403


async def test_own_keys_are_made_listed_and_revoked(town: Town) -> None:
    made = await town.user()
    token = (await town.login())["access_token"]
    body = {"name": "ci", "scopes": ["read"], "expires_in_days": 7, "description": "for tests"}
    answer = await town.call("POST", "/auth/api-keys", token, json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    key = answer.json()
    text = key.pop("key")
    stored = await town.house.records.get_key(key["id"])
    assert (stored.owner, stored.plan, stored.description) == (made["id"], "user", "for tests")
    me = (await town.call("GET", "/auth/me", text)).json()
    assert (me["id"], me["kind"], me["scopes"]) == (made["id"], "key", ["read"])
    assert (await town.call("POST", "/v1/sessions", text, json={"image": "host"})).status_code == 403
    assert [one["id"] for one in (await town.call("GET", "/auth/api-keys", token)).json()["api_keys"]] == [key["id"]]
    path = f"/auth/api-keys/{key['id']}"
    assert (await town.call("GET", path, token)).json()["name"] == "ci"
    assert (await town.call("DELETE", path, token)).json() == {"revoked": True}
    assert (await town.call("GET", "/auth/me", text)).status_code == 401
    assert (await town.call("GET", "/auth/api-keys", token)).json() == {"api_keys": []}


async def test_a_key_makes_no_keys_here_and_sees_none(town: Town) -> None:
    await town.user()
    token = (await town.login())["access_token"]
    key = (await town.call("POST", "/auth/api-keys", token, json={"name": "ci"})).json()
    for text in (key["key"], town.admin):
        assert (await town.call("POST", "/auth/api-keys", text, json={"name": "x"})).status_code == 403
        assert (await town.call("GET", "/auth/api-keys", text)).status_code == 403
        assert (await town.call("DELETE", f"/auth/api-keys/{key['id']}", text)).status_code == 403


async def test_a02_another_user_s_key_is_an_unknown_one(town: Town) -> None:
    await town.user()
    await town.user("ben")
    ann, ben = (await town.login())["access_token"], (await town.login("ben"))["access_token"]
    key = (await town.call("POST", "/auth/api-keys", ann, json={"name": "ci"})).json()
    for method in ("GET", "DELETE"):
        theirs = await town.call(method, f"/auth/api-keys/{key['id']}", ben)
        unknown = await town.call(method, "/auth/api-keys/key_000000000000", ben)
        assert (theirs.status_code, theirs.content) == (404, unknown.content)
    assert (await town.call("GET", "/auth/me", key["key"])).status_code == 200


async def test_registration_is_off_until_a_setting_turns_it_on(town: Town) -> None:
    body = {"username": "eve", "password": PASSWORD}
    assert (await town.call("POST", "/auth/register", json=body)).status_code == 404
    assert (await town.call("GET", "/api/users", town.admin)).json() == {"users": []}


async def test_where_it_is_on_anybody_registers(open_house: Any, cheap_passwords: None) -> None:

    records = MemoryRecords()
    async with open_house(records=records, keys=RealKeys(records), auth={"registration": True}) as house:
        town = Town(house, "")
        body = {"username": "eve", "password": PASSWORD}
        answer = await town.call("POST", "/auth/register", json=body)
        assert answer.status_code == 201
        me = (await town.call("GET", "/auth/me", answer.json()["access_token"])).json()
        assert (me["username"], me["admin"]) == ("eve", False)
        assert (await town.call("POST", "/auth/register", json=body)).status_code == 409
        assert (await town.call("POST", "/auth/register", json=body | {"admin": True})).status_code == 400


async def test_a15_guesses_are_bounded_and_an_honest_user_still_gets_in(open_house: Any, cheap_passwords: None) -> None:

    records = MemoryRecords()
    settings = {"auth": {"failures_per_user": 3}, "server": {"port": 0, "trusted_proxies": ["127.0.0.1"]}}
    async with open_house(records=records, keys=RealKeys(records), **settings) as house:
        made = await house.app.keys.create("admin", kind=KeyKind.OWNER)
        town = Town(house, made.text)
        await town.user()
        body, guesser = {"username": "ann", "password": "guess"}, {"x-forwarded-for": "203.0.113.9"}
        answers = [await town.call("POST", "/auth/login", json=body, headers=guesser) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 3
        assert 0 < int(answers[-1].headers["retry-after"]) <= 30
        right = {"username": "ann", "password": PASSWORD}
        there = await town.call("POST", "/auth/login", json=right, headers=guesser)
        assert there.status_code == 429  # the guesser learns nothing more, not even by guessing right
        elsewhere = await town.call("POST", "/auth/login", json=right, headers={"x-forwarded-for": "198.51.100.7"})
        assert elsewhere.status_code == 200


async def test_the_public_keys_are_there_and_no_private_one(town: Town) -> None:
    await town.user()
    await town.login()
    answer = await town.call("GET", "/.well-known/jwks.json")
    (key,) = answer.json()["keys"]
    assert {name: key[name] for name in ("kty", "crv", "alg", "use")} == {
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
    }  # fmt: skip
    assert "d" not in key and key["kid"].startswith("sig_")


async def test_a07_a_stream_ends_soon_after_its_login(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "LOOK_AGAIN_S", 0.05)
    await town.user()
    tokens = await town.login()
    sandbox = await town.house.create(tokens["access_token"], command=["sleep", "600"])
    async with town.house.socket(f"/v1/sessions/{sandbox['id']}/attach", tokens["access_token"]) as socket:
        await town.call("POST", "/auth/logout", json={"refresh_token": tokens["refresh_token"]})
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(5):
                while True:
                    await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
    with pytest.raises(InvalidStatus):
        await town.house.socket(f"/v1/sessions/{sandbox['id']}/attach", tokens["access_token"])


async def test_uses_of_tokens_are_logged_under_their_login(town: Town) -> None:
    await town.user()
    token = (await town.login())["access_token"]
    await town.call("GET", "/v1/sessions", token)
    await town.house.app.keys.close()
    uses = town.house.records._uses
    assert [use.endpoint for use in uses if use.key_id.startswith("login_")] == ["/v1/sessions"]


async def test_every_change_has_its_event_and_none_holds_a_secret(town: Town) -> None:
    made = await town.user()
    tokens = await town.login()
    await town.call("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    await town.call("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    await town.call("PATCH", "/api/users/ann", town.admin, json={"disabled": True})
    events = await town.house.records.list_events(tenant=made["id"])
    actions = [event.action for event in events if not event.action.startswith("workspace.")]
    assert actions == ["user.created", "login.created", "login.refreshed", "login.ended", "user.disabled"]
    told = repr(events)
    for secret in (PASSWORD, tokens["refresh_token"], tokens["access_token"]):
        assert secret not in told
