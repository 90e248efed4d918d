"""N12: each port has an origin of its own below a domain, and nothing of the API is served or known there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.surfaces.conftest import ALICE
from tests.surfaces.previews.conftest import Heard, Street, Streets, answering

DOMAIN = {"previews": {"domain": "box.example"}}


def host(street: Street, name: str) -> dict[str, str]:
    return {"host": name.format(street.sandbox.replace("_", "-")) + ".box.example:8080"}


async def ask(street: Street, name: str, path: str = "/", key: str | None = ALICE, **headers: str) -> Any:
    return await street.house.call("GET", path, key, headers=host(street, name) | headers)


async def test_n12_a_port_has_a_host_in_either_spelling(open_street: Streets) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        found: list[Heard] = []
        street.serve(answering(found))
        made = await street.register()
        dashed = street.sandbox.replace("_", "-")
        assert made["preview_url"].startswith(f"http://3000-{dashed}.box.example:")
        for name in ("3000-{}", "{}-3000"):
            for _ in range(2):
                assert (await ask(street, name, "/preview/x/1/y?z=1")).text == "hi"
        assert {one.line for one in found} == {"GET /preview/x/1/y?z=1 HTTP/1.1"}
        assert {one.headers["x-forwarded-host"] for one in found} == {
            f"3000-{dashed}.box.example:8080", f"{dashed}-3000.box.example:8080",
        }  # fmt: skip
        assert "x-forwarded-prefix" not in found[0].headers
        assert (await ask(street, "3000-{}", key=None)).status_code == 401


async def test_n12_no_path_of_the_api_is_served_at_a_previews_host(open_street: Streets) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        street.serve(answering([]))
        await street.register(public=True)
        for path in ("/v1/sessions", "/health", "/preview/list", "/openapi.json", f"/preview/{street.sandbox}/3000/"):
            assert (await ask(street, "3000-{}", path)).text == "hi"
            for name in ("www", "3000-sess-000000000000x", "99999-{}", "a.b", "{}.x", "-{}"):
                answer = await ask(street, name, path)
                assert (answer.status_code, answer.json()) == (404, {"detail": "No such preview"}), (name, path)
        assert (await street.house.call("GET", "/v1/sessions")).status_code == 200


async def test_n12_cookies_are_the_hosts_own_and_a_token_becomes_one(open_street: Streets) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        found: list[Heard] = []
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nset-cookie: a=1; domain=box.example; Secure; path=/x\r\n\r\n"
        street.serve(answering(found, answer))
        await street.register()
        token = await street.token()
        asked = await ask(street, "3000-{}", f"/a?preview_token={token}", None)
        assert (asked.status_code, asked.headers["location"]) == (307, "/a")
        assert "domain" not in asked.headers["set-cookie"].lower()
        assert "Path=/;" in asked.headers["set-cookie"] + ";"
        street.house.http.cookies.clear()
        came = await ask(street, "3000-{}", "/a", None, cookie=f"atoll_preview={token}; atoll_session=1; own=1")
        assert came.headers["set-cookie"] == "a=1; Secure; Path=/x"
        assert found[-1].headers["cookie"] == "own=1"


async def test_n12_the_token_is_taken_out_of_an_address_without_leaving_the_host(open_street: Streets) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        street.serve(answering([]))
        await street.register()
        rest = f"?preview_token={await street.token()} HTTP/1.1\r\nconnection: close\r\n"
        rest += f"host: {host(street, '3000-{}')['host']}\r\n\r\n"
        for path, location in ((r"//evil.example/", b"/.//evil.example/"), (r"/\evil.example/", b"/%5Cevil.example/")):
            said = await street.raw(f"GET {path}{rest}".encode())
            assert b"\r\nlocation: " + location + b"\r\n" in said


async def test_n12_another_preview_below_the_domain_uses_no_cookie_of_this_one(open_street: Streets) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        street.serve(answering([]))
        await street.register()
        cookie = f"atoll_preview={await street.token()}"
        dashed = street.sandbox.replace("_", "-")
        origin = f"http://3001-{dashed}.box.example:8080"
        assert (await ask(street, "3000-{}", key=None, cookie=cookie, origin=origin)).status_code == 403
        assert (await ask(street, "3000-{}", key=None, cookie=cookie)).status_code == 200


@pytest.mark.parametrize(("settings", "sandboxed"), [({}, False), ({"domain": "box.example"}, True)])
async def test_n12_pages_by_path_have_no_part_in_the_apis_origin_where_there_is_a_better_place(
    open_street: Streets, settings: dict[str, str], *, sandboxed: bool
) -> None:
    async with open_street(more_settings={"previews": settings}) as street:
        street.serve(answering([]))
        await street.register()
        for _ in range(2):
            came = await street.house.call("GET", street.path())
            policy = came.headers.get("content-security-policy", "")
            assert policy.startswith("sandbox ") == sandboxed
            assert "allow-same-origin" not in policy


async def test_the_daemon_of_a_sandbox_has_a_host_too(open_street: Streets) -> None:
    async with open_street(more_settings=DOMAIN) as street:
        by_host = await ask(street, "{}", "/health", None)
        by_path = await street.house.call("GET", f"/sb/{street.sandbox}/health", None)
        assert by_host.status_code == by_path.status_code
        assert by_host.json().keys() == by_path.json().keys()
        assert (await ask(street, "{}", "/v1/sessions")).status_code == 404
