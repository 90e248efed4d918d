"""Who may look at a preview: its owner, whoever has its token, and anybody where it is public."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest

from atoll.gateway.previews.heads import answer_headers, bounded_cookie, without_ours
from atoll.sdk import AsyncSandbox
from atoll.services.keys import Left
from tests.surfaces.conftest import ALICE, BOB, READER
from tests.surfaces.previews.conftest import Heard, Streets, answering


async def test_a_preview_is_its_owners(open_street: Streets) -> None:
    async with open_street() as street:
        street.serve(answering([]))
        await street.register()
        call = street.house.call
        assert (await call("GET", street.path())).text == "hi"
        assert (await call("GET", street.path(), None)).status_code == 401
        assert (await call("GET", street.path(), "sk_" + "0" * 64)).status_code == 401
        assert (await call("GET", street.path(), READER)).status_code == 403
        foreign, unknown = await call("GET", street.path(), BOB), await call("GET", street.path(port=3001), BOB)
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.content == unknown.content == b'{"detail":"Preview target not registered"}'


async def test_only_a_registered_port_is_reached(open_street: Streets) -> None:
    async with open_street() as street:
        street.serve(answering([]))
        call = street.house.call
        assert (await call("GET", street.path())).status_code == 404
        await street.register()
        assert (await call("GET", street.path())).status_code == 200
        gone = await call("DELETE", f"/preview/register/{street.sandbox}/3000")
        assert gone.json() == {"removed": True}
        assert (await call("GET", street.path())).status_code == 404
        assert (await call("DELETE", f"/preview/register/{street.sandbox}/3000")).status_code == 404


async def test_what_is_registered_is_listed_with_its_addresses(open_street: Streets) -> None:
    async with open_street() as street:
        made = await street.register(backend_url="http://127.0.0.1:3000/", metadata={"a": "b"})
        assert made["url"] == "http://127.0.0.1:3000"
        assert (made["use_fallback"], made["metadata"]) == (False, {"a": "b"})
        assert made["preview_url"] == street.house.url + street.path()
        listed = await street.house.call("GET", "/preview/list")
        assert listed.json() == {f"{street.sandbox}:3000": made}
        assert (await street.house.call("GET", "/preview/list", BOB)).json() == {}


async def test_what_is_not_said_anew_of_a_preview_stays(open_street: Streets) -> None:
    async with open_street() as street:
        other = (await street.house.create())["id"]
        said = {"public": True, "fallback_sandbox_id": other, "metadata": {"a": "b"}}
        made = await street.register(health_path="/up", **said)
        assert {name: made[name] for name in said} == said
        assert await street.register() == made
        sandbox = await AsyncSandbox.connect(street.sandbox, url=street.house.url, api_key=ALICE)
        assert await sandbox.preview(3000) == made["preview_url"]
        assert (await street.house.call("GET", "/preview/list")).json() == {f"{street.sandbox}:3000": made}
        assert "preview_token=" in await sandbox.preview(3000, public=False)
        private = made | {"public": False}
        assert await street.register() == private
        stored = await street.house.records.get_preview(f"{street.sandbox}:3000")
        assert stored is not None and stored.health_path == "/up"
        bare = await street.register(fallback_sandbox_id=None, metadata=None, health_path=None)
        assert bare == private | {"fallback_sandbox_id": None, "metadata": {}}


async def test_who_registers_what_atoll_had_registered_makes_it_his_own(open_street: Streets) -> None:
    async with open_street() as street:
        previews, alice = street.house.app.showing.previews, street.house.keys.principals[ALICE]
        noticed = {"registered_by": "signals"}
        await previews.register(alice, street.sandbox, 3000, metadata=noticed, public=True)
        wanted = {"sandbox_id": street.sandbox, "port": 3000}
        refused = await street.house.call("POST", "/preview/register", json=wanted | {"metadata": noticed})
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "metadata"])
        made = await street.register()
        assert (made["metadata"], made["public"]) == ({}, True)


async def test_a_member_sees_all_previews_of_its_groups_in_pages(open_street: Streets) -> None:
    async with open_street(more_settings={"previews": {"per_owner": 2}}) as street:
        call = street.house.call
        group = (await call("POST", "/api/groups", json={"name": "team"})).json()["id"]
        bob = street.house.keys.principals[BOB].id
        await call("POST", f"/api/groups/{group}/members", json={"principal": bob, "role": "member"})
        ours, bobs = (await street.house.create(group=group))["id"], (await street.house.create(BOB))["id"]
        for port in (3000, 3001):
            await street.register(port=port)
            await street.register(sandbox_id=ours, port=port)
            await street.register(BOB, sandbox_id=bobs, port=port)
        wanted = sorted(f"{sandbox}:{port}" for sandbox in (ours, bobs) for port in (3000, 3001))
        whole = await call("GET", "/preview/list", BOB)
        assert (list(whole.json()), "link" in whole.headers) == (wanted, False)
        seen, path = list[str](), "/preview/list?limit=3"
        while path:
            page = await call("GET", path, BOB)
            assert len(page.json()) <= 3
            seen += page.json()
            path = page.links.get("next", {}).get("url", "")
        assert seen == wanted
        for wrong in ("limit=0", "limit=1001", "after=" + "x" * 257):
            assert (await call("GET", f"/preview/list?{wrong}")).status_code == 422


@pytest.mark.parametrize(
    "backend_url",
    [
        "http://169.254.169.254:3000/", "http://127.0.0.1:8080", "https://127.0.0.1:3000", "file:///etc/passwd",
        "http://127.0.0.1@evil.example:3000", "http://user@127.0.0.1:3000", "http://[::ffff:10.0.0.1]:3000",
        "http://127.0.0.1.nip.io:3000", "http://2130706433:3000", "http://127.0.0.1:3000/admin", "127.0.0.1:3000",
        "http://127.0.0.1:99999", "http://[", "http://0x7f000001:3000",
    ],
)  # fmt: skip
async def test_n08_a_backend_is_a_port_of_the_sandbox_and_nothing_else(open_street: Streets, backend_url: str) -> None:
    async with open_street() as street:
        body = {"sandbox_id": street.sandbox, "port": 3000, "backend_url": backend_url}
        answer = await street.house.call("POST", "/preview/register", json=body)
        assert answer.status_code == 400, answer.text
        assert "backend_url" in answer.json()["detail"]


async def test_a_token_opens_its_preview_and_becomes_a_cookie_of_it(open_street: Streets) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found))
        street.serve(answering(found), port=3001)
        await street.register()
        await street.register(port=3001)
        token = await street.token()
        call = street.house.call
        header = {"x-preview-token": token}
        assert (await call("GET", street.path(), None, headers=header)).status_code == 200
        assert (await call("GET", street.path(port=3001), None, headers=header)).status_code == 401
        asked = await call("GET", street.path(f"/a?x=1&preview_token={token}"), None)
        assert asked.status_code == 307
        assert asked.headers["location"] == street.path("/a?x=1")
        cookie = asked.headers["set-cookie"]
        assert f"Path={street.path()}" in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        street.house.http.cookies.clear()
        mine = {"cookie": f"other=1; atoll_preview={token}"}
        for _ in range(2):
            assert (await call("GET", street.path(), None, headers=mine)).status_code == 200
        assert found[-1].headers["cookie"] == "other=1"
        assert "x-preview-token" not in found[0].headers
        assert (await call("POST", street.path(), None, headers=mine)).status_code == 403, "no page of another's"
        same = mine | {"origin": street.house.url}
        assert (await call("POST", street.path(), None, headers=same)).status_code == 200
        assert (await call("POST", street.path(), None, headers=mine | {"origin": "http://evil"})).status_code == 403


async def test_a_token_ends_with_its_registration_and_in_time(open_street: Streets) -> None:
    async with open_street() as street:
        street.serve(answering([]))
        await street.register()
        header = {"x-preview-token": await street.token()}
        await street.register(metadata={"a": "b"})
        assert (await street.house.call("GET", street.path(), None, headers=header)).status_code == 200
        await street.house.call("DELETE", f"/preview/register/{street.sandbox}/3000")
        await street.register()
        assert (await street.house.call("GET", street.path(), None, headers=header)).status_code == 401
        for seconds in (0, 10**9):
            body = {"sandbox_id": street.sandbox, "port": 3000, "expires_in": seconds}
            assert (await street.house.call("POST", "/preview/token", json=body)).status_code == 422


async def test_a_token_ends_with_its_makers_key_and_with_the_text_that_it_had(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.surfaces.previews.tickets.GOOD_S", -1.0)
    async with open_street() as street:
        street.serve(answering([]))
        await street.register()
        header = {"x-preview-token": await street.token()}
        ring = street.house.keys
        left = ring.left

        async def status() -> int:
            return (await street.house.call("GET", street.path(), None, headers=header)).status_code

        async def rotated(key_id: str) -> Left:
            found = await left(key_id)
            return replace(found, key=replace(found.key, hash="1" * 64))

        assert await status() == 200
        monkeypatch.setattr(ring, "left", rotated)
        assert await status() == 401
        monkeypatch.setattr(ring, "left", left)
        assert await status() == 200
        made_with = ring.principals[ALICE].id
        ring.principals = {text: one for text, one in ring.principals.items() if one.id != made_with}
        assert await status() == 401


async def test_a_preview_token_is_no_credential_of_the_api(open_street: Streets) -> None:
    async with open_street() as street:
        await street.register()
        token = await street.token()
        assert (await street.house.call("GET", "/v1/sessions", token)).status_code == 401
        assert (await street.house.call("GET", street.path(), token)).status_code == 401


async def test_a_public_preview_gets_the_programs_own_credentials_and_none_of_ours(open_street: Streets) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found))
        await street.register(public=True)
        call = street.house.call
        for _ in range(2):
            assert (await call("GET", street.path(), None)).status_code == 200
            assert (await call("GET", street.path(), BOB)).status_code == 200
            assert "authorization" not in found[-1].headers
            own = {"authorization": "Bearer app-token", "x-api-key": "app"}
            assert (await call("GET", street.path(), None, headers=own)).status_code == 200
            assert (found[-1].headers["authorization"], found[-1].headers["x-api-key"]) == ("Bearer app-token", "app")


async def test_a_ticket_ends_with_what_it_was_for(open_street: Streets) -> None:
    async with open_street() as street:
        street.serve(answering([]))
        await street.register(public=True)
        assert (await street.house.call("GET", street.path(), None)).status_code == 200
        await street.register(public=False)
        assert (await street.house.call("GET", street.path(), None)).status_code == 401


async def test_a_ticket_does_not_end_with_what_happens_to_other_previews(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_street() as street:
        await street.register()
        previews = street.house.app.showing.previews
        known = previews.generation(f"{street.sandbox}:3000")
        await street.register(port=3001)
        assert previews.generation(f"{street.sandbox}:3000") == known
        monkeypatch.setattr("atoll.services.previews.previews.CHANGES_MAX", 1)  # they are counted anew
        await street.register(port=3002)
        assert previews.generation(f"{street.sandbox}:3000") != known


async def test_a_key_in_the_address_opens_nothing_for_the_next_one(open_street: Streets) -> None:
    async with open_street(keys=None, more_settings={"keys": {"in_query": True}}) as street:
        street.serve(answering([]))
        await street.register()
        assert (await street.house.call("GET", street.path(f"/?api_key={ALICE}"), None)).status_code == 200
        assert (await street.house.call("GET", street.path(), None)).status_code == 401


async def test_fallbacks_are_sandboxes_of_the_same_owner(open_street: Streets) -> None:
    async with open_street() as street:
        bobs = (await street.house.create(BOB))["id"]
        for other in (bobs, "sess_000000000000", street.sandbox):
            body = {"sandbox_id": street.sandbox, "port": 3000, "fallback_sandbox_id": other}
            answer = await street.house.call("POST", "/preview/register", json=body)
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"] == ["body", "fallback_sandbox_id"]


def test_cookies_of_ours_are_known_in_every_spelling() -> None:
    assert without_ours(b"a=1; ATOLL_preview=x; __Secure-atoll_x=y; __Host-__Secure-atoll_z=1;b=2") == b"a=1;b=2"
    assert without_ours(b"atoll_preview=x") == b""
    assert bounded_cookie(b"__Host-a=1; Path=/", "/preview/s/1") is None
    assert bounded_cookie(b" atoll_session=1", "") is None
    assert bounded_cookie(b"=atoll_session=1", "") is None
    assert bounded_cookie(b"atoll", "") is None


async def test_a_sandbox_may_be_called_by_the_name_that_its_owner_gave_it(open_street: Streets) -> None:
    async with open_street() as street:
        call = street.house.call
        made = await call("POST", "/sandboxes", json={"sandbox_id": "my-box", "sandbox_config": {"network": "none"}})
        assert made.status_code == 200, made.text
        shown = await street.register(sandbox_id="my-box")
        street.serve(answering([]), sandbox=shown["sandbox_id"])
        assert (await call("GET", "/preview/my-box/3000/")).text == "hi"
        assert (await call("GET", "/preview/my-box/3000/", BOB)).status_code == 404
        assert (await call("GET", "/preview/my-box/3000/", None)).status_code == 401
        assert (await call("GET", "/preview/other/3000/")).status_code == 404


ADMIN = "an-operators-own-words-0123456789"


async def test_no_credential_of_ours_reaches_a_public_program_however_it_is_sent(open_street: Streets) -> None:
    async with open_street(more_settings={"admin": {"api_key": ADMIN}}) as street:
        found: list[Heard] = []
        street.serve(answering(found))
        await street.register(public=True)
        basic = b64encode(f"user:{BOB}".encode()).decode()
        carried = (
            {"authorization": f"Bearer {ADMIN}"}, {"x-api-key": ADMIN}, {"x-admin-key": ADMIN},
            {"authorization": f"token {BOB}"}, {"authorization": f"Basic {BOB}"}, {"authorization": f"Basic {basic}"},
            {"authorization": BOB}, {"sec-websocket-protocol": f"atoll.token.{BOB}"},
            {"authorization": f"Bearer\t{BOB}"}, {"authorization": f"Token token={BOB}"},
            {"authorization": f'Digest username="u", response="{ADMIN}"'}, {"authorization": f"Token k=v;token={BOB}"},
        )  # fmt: skip
        for headers in carried:
            for _ in range(2):
                assert (await street.house.call("GET", street.path(), None, headers=headers)).status_code == 200
                assert next(iter(headers)) not in found[-1].headers
        for _ in range(2):
            query = f"/a?x=%7e&token={BOB}&api_key={BOB}&token=theirs&y"
            assert (await street.house.call("GET", street.path(query), None)).status_code == 200
            assert found[-1].line == "GET /a?x=%7e&token=theirs&y HTTP/1.1"
        named = [(name, ADMIN) for name in ("access_token", "Auth_Token", "apikey", "X-API-Key", "%74oken")]
        for name, ours in (*named, ("whatever", BOB)):
            assert (await street.house.call("GET", street.path(f"/?y&{name}={ours}"), None)).status_code == 200
            assert found[-1].line == "GET /?y HTTP/1.1"
        own = 'OAuth realm="r", oauth_consumer_key="0123456789abcdef", oauth_token="fedcba9876543210", oauth_version=1'
        query = "/?access_token=theirs&auth=eyJhbGciOiJub25lIn0.e30.&key=sk_theirs"
        assert (await street.house.call("GET", street.path(query), None, headers={"authorization": own})).is_success
        assert (found[-1].line, found[-1].headers["authorization"]) == (f"GET {query} HTTP/1.1", own)


async def test_what_reads_like_a_header_of_ours_goes_no_further(open_street: Streets) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found))
        await street.register(public=True)
        theirs = {"x_forwarded_for": "192.0.2.1", "content_length": "5", "my_own": "1"}
        await street.house.call("GET", street.path(), None, headers=theirs)
        assert {name for name in found[-1].headers if "_" in name} == {"my_own"}


def test_what_holds_for_an_origin_is_told_by_programs_that_have_one() -> None:
    theirs = [(b"strict-transport-security", b"max-age=9"), (b"clear-site-data", b'"*"'), (b"nel", b"{}"), (b"x", b"y")]
    assert answer_headers(200, theirs, "/preview/s/1", []) == [(b"x", b"y")]
    assert answer_headers(200, theirs, "", []) == theirs
    for name in (b"use-as-dictionary", b"sec-session-registration"):
        assert answer_headers(200, [(name, b"x")], "/preview/s/1", []) == []


def test_what_reads_like_a_header_that_is_not_passed_on_does_not_come_back() -> None:
    theirs = [(b"transfer_encoding", b"chunked"), (b"set_cookie", b"atoll_session=1"), (b"my_own", b"1")]
    assert answer_headers(200, theirs, "", []) == [(b"my_own", b"1")]
