"""A sandbox's daemon: its tokens, magic links and child sandboxes, as ComputeSDK's clients read them (W01, W02)."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from atoll.domain.errors import QuotaExceeded
from atoll.services.daemon import children
from tests.surfaces.conftest import ALICE, BOB, READER, House, Opener

UNKNOWN = "/sb/sess_000000000000"


@pytest.fixture
async def house(open_house: Opener) -> Any:
    async with open_house() as house:
        yield house


async def made(house: House, **body: Any) -> tuple[str, str]:
    """The path of a daemon, and the access token."""
    data = (await house.call("POST", "/v1/sandboxes", json=body)).json()["data"]
    return f"/sb/{data['sandboxId']}", data["token"]


async def test_a_session_token_is_told_once_in_both_forms_and_makes_no_other(house: House) -> None:
    path, access = await made(house)
    body = {"description": "for bob", "expires_in": 60}
    answer = await house.call("POST", f"{path}/auth/session_tokens", access, json=body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    one = answer.json()
    assert {name: one["data"][name] for name in one["data"]} == {name: one[name] for name in one["data"]}
    assert (one["createdAt"], one["expiresAt"]) == (one["created_at"], one["expires_at"])
    assert one["expiresIn"] in (59, 60)
    listed = (await house.call("GET", f"{path}/auth/session_tokens", access)).json()["data"]["tokens"]
    assert [token["id"] for token in listed] == [one["id"]]
    assert "token" not in listed[0]
    status = (await house.call("GET", f"{path}/auth/status", one["token"])).json()["data"]
    assert (status["token_type"], status["expires_at"]) == ("session_token", one["expiresAt"])
    for method, refused in (
        ("POST", "/auth/session_tokens"),
        ("GET", "/auth/session_tokens"),
        ("DELETE", f"/auth/session_tokens/{one['id']}"),
        ("POST", "/auth/magic-links"),
        ("POST", "/auth/token"),
        ("POST", "/sandboxes"),
    ):
        assert (await house.call(method, path + refused, one["token"])).status_code == 403, refused
    gone = await house.call("DELETE", f"{path}/auth/session_tokens/{one['id']}", access)
    assert gone.status_code == 204
    assert (await house.call("GET", f"{path}/auth/status", one["token"])).status_code == 401


async def test_a_token_opens_no_other_sandbox_and_nothing_else_of_its_owner(house: House) -> None:
    path, access = await made(house)
    other, _ = await made(house)
    answers = [await house.call("GET", f"{one}/info", access) for one in (other, UNKNOWN)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
    assert (await house.call("GET", f"{path}/info", access)).json()["data"]["sandbox_count"] == 1
    assert [one["id"] for one in (await house.call("GET", "/v1/sessions", access)).json()["sessions"]] == [path[4:]]
    assert (await house.call("GET", "/v1/workspaces", access)).json()["workspaces"] == []
    for method, where in (("POST", "/v1/sandboxes"), ("POST", "/api/keys"), ("POST", "/v1/workspaces")):
        answer = await house.call(method, where, access, json={"name": "x"})
        assert answer.status_code == 403, (where, answer.text)


async def test_who_reads_only_gets_a_token_that_reads_only(house: House) -> None:
    path, _ = await made(house)
    narrow = (await house.call("GET", path.replace("/sb/", "/v1/sandboxes/"), READER)).json()["data"]["token"]
    assert (await house.call("GET", f"{path}/info", narrow)).status_code == 200
    answer = await house.call("POST", f"{path}/run/command", narrow, json={"command": "true"})
    assert answer.status_code == 403


async def test_a_magic_link_signs_a_browser_in_once_and_leads_nowhere_else(house: House) -> None:
    path, access = await made(house)
    link = (await house.call("POST", f"{path}/auth/magic-links", access)).json()["data"]
    assert link["redirect_url"] == "/play/"
    other, _ = await made(house)
    elsewhere = link["magic_url"].replace(path, other)
    assert (await house.http.get(elsewhere)).status_code == 400
    token = link["magic_url"].partition("token=")[2]
    assert (await house.call("GET", f"{path}/info", token)).status_code == 401
    looked_at = await house.http.head(link["magic_url"], follow_redirects=False)  # as programs do that read mails
    assert (looked_at.status_code, "set-cookie" in looked_at.headers) == (204, False)
    answer = await house.http.get(link["magic_url"], follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, f"{house.url}{path}/play/")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", f"Path={path};", "SameSite=lax"))
    again = await house.http.get(link["magic_url"], follow_redirects=False)
    assert (again.status_code, "set-cookie" in again.headers) == (400, False)
    signed_in = {"cookie": cookie.partition(";")[0]}
    page = await house.call("GET", f"{path}/play/", None, headers=signed_in)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await house.call("GET", f"{other}/play/", None, headers=signed_in)).status_code == 404


async def signed_in_at(house: House) -> tuple[str, dict[str, str]]:
    """The path of a daemon, and the headers of a browser that a magic link has signed in."""
    path, access = await made(house)
    link = (await house.call("POST", f"{path}/auth/magic-links", access)).json()["data"]["magic_url"]
    at = urlsplit(link)  # nobody resolves such a host
    followed = await house.call(
        "GET", f"{at.path}?{at.query}", None, follow_redirects=False, headers={"host": at.netloc}
    )
    cookie = followed.headers["set-cookie"]
    return path, {"cookie": cookie.partition(";")[0]}


async def test_a_magic_link_signs_in_at_the_sandboxs_own_host_alone(open_house: Opener) -> None:
    async with open_house(previews={"domain": "boxes.example"}) as house:
        path, access = await made(house)
        link = (await house.call("POST", f"{path}/auth/magic-links", access)).json()["data"]["magic_url"]
        query = link.partition("?")[2]
        here = await house.call("GET", f"{path}/auth/magic?{query}", None, follow_redirects=False)
        assert (here.status_code, here.headers["location"], "set-cookie" in here.headers) == (302, link, False)
        host = {"host": urlsplit(link).netloc}
        there = await house.call("GET", f"/auth/magic?{query}", None, follow_redirects=False, headers=host)
        assert (there.status_code, there.headers["location"]) == (302, "/play/")
        assert "Path=/;" in there.headers["set-cookie"]
        again = await house.call("GET", f"/auth/magic?{query}", None, follow_redirects=False, headers=host)
        assert again.status_code == 400
        for no_id in ("evil.example%2F", "sess_", "sess-0123456789ab"):
            lost = await house.call("GET", f"/sb/{no_id}/auth/magic?token=x", None, follow_redirects=False)
            assert (lost.status_code, "location" in lost.headers) == (400, False), no_id


@pytest.mark.parametrize("previews", [{"path_pages": "sandboxed"}, {"domain": "boxes.example"}])
async def test_a_cookie_acts_for_own_pages_where_pages_of_sandboxes_have_an_origin_of_their_own(
    open_house: Opener, previews: dict[str, str]
) -> None:
    async with open_house(previews=previews) as house:
        path, signed_in = await signed_in_at(house)
        for origin, status in (({"origin": house.url}, 200), ({"origin": "http://evil.example"}, 403), ({}, 403)):
            run = await house.call(
                "POST", f"{path}/run/command", None, headers=signed_in | origin, json={"command": "true"}
            )
            assert run.status_code == status, origin
        assert (await house.call("GET", f"{path}/info", None, headers=signed_in)).status_code == 200


@pytest.mark.parametrize("previews", [{}, {"path_pages": "trusted", "domain": "boxes.example"}])
async def test_a_cookie_opens_pages_alone_where_a_sandboxs_page_may_have_this_servers_origin(
    open_house: Opener, previews: dict[str, str]
) -> None:
    async with open_house(previews=previews) as house:
        path, signed_in = await signed_in_at(house)
        same = signed_in | {"origin": house.url}
        for page in ("/", "/play/"):
            assert (await house.call("GET", path + page, None, headers=signed_in)).status_code == 200
        run = await house.call("POST", f"{path}/run/command", None, headers=same, json={"command": "true"})
        assert run.status_code == 401
        for read in ("/info", "/files", "/terminals", "/auth/status"):
            assert (await house.call("GET", path + read, None, headers=same)).status_code == 401, read
        with pytest.raises(InvalidStatus) as refused:
            async with connect(house.url.replace("http", "ws", 1) + f"{path}/ws", additional_headers=same):
                pass
        assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    "redirect",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "play", "/a/../../b", "/%2E%2e/b", "/a b", "/\n/x"],
)
async def test_a_magic_link_takes_only_a_path_of_its_daemon(house: House, redirect: str) -> None:
    path, access = await made(house)
    answer = await house.call("POST", f"{path}/auth/magic-links", access, json={"redirectUrl": redirect})
    assert answer.status_code == 400
    assert "redirectUrl" in answer.json()["error"]


async def test_the_old_call_gives_one_token(house: House) -> None:
    path, access = await made(house)
    first = await house.call("POST", f"{path}/auth/token", access)
    assert first.status_code == 201
    assert (await house.call("GET", f"{path}/info", first.json()["data"]["token"])).status_code == 200
    assert (await house.call("POST", f"{path}/auth/token", access)).status_code == 409


async def test_anybody_may_ask_whether_the_door_answers_and_learns_nothing(house: House) -> None:
    path, _ = await made(house)
    for one in (path, UNKNOWN):
        answer = await house.call("GET", f"{one}/health", None)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert (await house.call("GET", f"{path}/", None)).status_code == 401


async def test_w01_a_terminal_token_opens_websockets_and_no_request(house: House) -> None:
    path, access = await made(house)
    token = (await house.call("POST", f"/sandboxes/{path[4:]}/terminal/token", ALICE)).json()["token"]
    assert (await house.call("GET", f"{path}/info", token)).status_code == 401
    async with house.socket(f"{path}/ws?token={token}", None):
        pass
    async with house.socket(f"{path}/ws", None, subprotocols=["x", f"atoll.token.{access}"]) as socket:
        assert socket.subprotocol == "x"


async def test_children_are_sandboxes_of_their_own_that_end_with_their_parent(house: House) -> None:
    path, access = await made(house, directory="/app")
    children = [(await house.call("POST", f"{path}/sandboxes", access, json={})).json() for _ in range(2)]
    first = children[0]
    assert first["url"] == f"{house.url}/sb/{first['subdomain'].replace('-', '_')}"
    listed = (await house.call("GET", f"{path}/sandboxes", access)).json()["sandboxes"]
    main = listed[0]
    assert [one["subdomain"] for one in listed[1:]] == [one["subdomain"] for one in children]
    assert (main["is_main"], main["directory"]) == (True, "/app")
    assert (
        await house.call("GET", f"/sb/{first['subdomain'].replace('-', '_')}/info", first["token"])
    ).status_code == 200
    assert (await house.call("DELETE", f"{path}/sandboxes/{main['subdomain']}", access)).status_code == 400
    for key in (BOB, first["token"]):
        assert (await house.call("GET", f"{path}/sandboxes", key)).status_code == 404
    nested = await house.call("POST", f"/sb/{first['subdomain'].replace('-', '_')}/sandboxes", ALICE)
    assert nested.status_code == 409
    gone = await house.call("DELETE", f"{path}/sandboxes/{first['subdomain']}?delete_files=true", access)
    assert gone.status_code == 204
    assert (await house.call("GET", f"{path}/sandboxes/{first['subdomain']}", access)).status_code == 404
    await house.call("DELETE", f"/v1/sessions/{path[4:]}")  # by whatever surface
    for _ in range(300):
        alive = [one for one in house.records._sandboxes.values() if one.live]
        kept = await house.records.list_workspaces()
        if not alive and not kept:
            break
        await asyncio.sleep(0.01)
    assert (alive, kept) == ([], [])


async def test_a_token_makes_children_of_its_own_sandboxes_snapshots_alone(house: House) -> None:
    path, access = await made(house)
    (elsewhere, _), kept = await made(house), []
    for one in (path, elsewhere):
        answer = await house.call("POST", "/v1/snapshots", json={"sandboxId": one[4:]})
        kept.append(answer.json()["data"]["id"])
    own, others = kept

    async def child(snapshot: str, key: str) -> Any:
        return await house.call("POST", f"{path}/sandboxes", key, json={"snapshotId": snapshot})

    refused, unknown = await child(others, access), await child("snap_2020_01_01_000000", access)
    assert (refused.status_code, refused.content) == (404, unknown.content)
    first = await child(own, access)
    assert first.status_code == 201
    made_of = {"sandboxId": first.json()["subdomain"].replace("-", "_")}
    childs = (await house.call("POST", "/v1/snapshots", json=made_of)).json()["data"]["id"]
    assert (await child(childs, access)).status_code == 201
    assert (await child(others, ALICE)).status_code == 201


async def test_a_child_does_not_outlive_a_parent_that_ended_while_it_was_made(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, access = await made(house)
    own = house.app.computes.own
    create = own.create

    async def after_the_parents_end(*args: Any, **more: Any) -> Any:
        await house.call("DELETE", f"/v1/sessions/{path[4:]}")
        return await create(*args, **more)

    monkeypatch.setattr(own, "create", after_the_parents_end)
    assert (await house.call("POST", f"{path}/sandboxes", access)).status_code == 409
    assert [one.id for one in house.records._sandboxes.values() if one.live] == []


async def test_there_are_no_more_children_than_there_may_be_however_many_are_made_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "CHILDREN_MAX", 3)
    path, access = await made(house)
    first = (await house.call("POST", f"{path}/sandboxes", access)).json()["subdomain"]
    answers = await asyncio.gather(*(house.call("POST", f"{path}/sandboxes", access) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 429, 429, 429]
    assert len((await house.call("GET", f"{path}/sandboxes", access)).json()["sandboxes"]) == 1 + 3
    await house.call("DELETE", f"{path}/sandboxes/{first}?delete_files=true", access)
    assert (await house.call("POST", f"{path}/sandboxes", access)).status_code == 201


async def test_a_child_that_leaves_its_workspace_keeps_its_place(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "CHILDREN_MAX", 2)
    path, access = await made(house)
    for _ in range(2):
        child = (await house.call("POST", f"{path}/sandboxes", access)).json()["subdomain"]
        assert (await house.call("DELETE", f"{path}/sandboxes/{child}", access)).status_code == 204
    refused = await house.call("POST", f"{path}/sandboxes", access)
    assert (refused.status_code, "workspaces" in refused.json()["error"]) == (429, True)
    kept = [one.id for one in await house.records.list_workspaces() if one.tags == (children.KEPT + path[4:],)]
    assert len(kept) == 2
    assert (await house.call("DELETE", f"/v1/workspaces/{kept[0]}")).status_code in (200, 204)
    assert (await house.call("POST", f"{path}/sandboxes", access)).status_code == 201


async def test_what_gets_no_token_is_not_left_behind(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = await made(house)

    async def none(*_: Any, **__: Any) -> Any:
        raise QuotaExceeded("no more tokens")

    monkeypatch.setattr(house.app.sandbox_tokens, "access", none)
    for where in (f"{path}/sandboxes", "/v1/sandboxes"):
        assert (await house.call("POST", where)).status_code == 429
    assert [one.id for one in house.records._sandboxes.values() if one.live] == [path[4:]]


async def test_a_childs_files_stay_unless_they_are_to_be_deleted(house: House) -> None:
    path, access = await made(house)
    child = (await house.call("POST", f"{path}/sandboxes", access)).json()["subdomain"]
    workspace = house.records._sandboxes[child.replace("-", "_")].spec.workspaces[0].workspace
    await house.call("DELETE", f"{path}/sandboxes/{child}", access)
    await house.call("DELETE", path.replace("/sb/", "/v1/sandboxes/"))
    for _ in range(300):
        kept = [one.id for one in await house.records.list_workspaces()]
        if kept == [workspace]:
            break
        await asyncio.sleep(0.01)
    assert kept == [workspace]
