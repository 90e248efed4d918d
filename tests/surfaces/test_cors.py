"""Pages of other origins read Testbase's answers, and others' only where the settings name them; never with cookies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.surfaces.conftest import ALICE, House, Opener
from tests.surfaces.test_listeners import EVERYTHING, beside

PAGE = "https://app.example"
ALLOWED = "access-control-allow-origin"


def asked(method: str, headers: str = "authorization", origin: str = PAGE) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }


def words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",")}


async def test_a_preflight_of_testbases_is_answered_without_a_credential_as_its_protocol_says(house: House) -> None:
    for path in ("/execute", "/workspace/default/files", "/sessions", "/billing/account", "/health", "/admin/keys"):
        answer = await house.call("OPTIONS", path, None, headers=asked("POST", "content-type, x-api-key"))
        assert (answer.status_code, answer.headers[ALLOWED]) == (200, "*"), path
        methods = words(answer.headers["access-control-allow-methods"])
        assert methods == {"GET", "POST", "PUT", "DELETE", "OPTIONS"}
        assert words(answer.headers["access-control-allow-headers"]) >= {"Content-Type", "Authorization", "X-API-Key"}
        assert "access-control-allow-credentials" not in answer.headers
    assert house.keys.looks == 0


async def test_answers_of_testbases_may_be_read_by_any_page_errors_too(house: House) -> None:
    for key, status in ((ALICE, 200), (None, 401), ("sk_wrong", 403)):
        answer = await house.call("GET", "/sessions", key, headers={"origin": PAGE})
        assert (answer.status_code, answer.headers[ALLOWED]) == (status, "*")
        assert "access-control-allow-credentials" not in answer.headers


async def test_a_header_that_the_protocol_does_not_list_is_not_allowed(house: House) -> None:
    answer = await house.call("OPTIONS", "/execute", None, headers=asked("POST", "x-admin-key"))
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/v1/sessions", "/api/groups", "/workspaces", "/v1/workspaces", "/metrics", "/docs"])
async def test_others_answer_no_page_by_default(house: House, path: str) -> None:
    preflight = await house.call("OPTIONS", path, None, headers=asked("GET"))
    assert preflight.status_code in (401, 405) and ALLOWED not in preflight.headers
    answer = await house.call("GET", path, ALICE, headers={"origin": PAGE})
    assert answer.status_code == 200 and ALLOWED not in answer.headers


async def test_a_page_of_this_machines_browser_reads_nobodys_sandboxes_in_the_metrics(house: House) -> None:
    session = await house.create()
    await house.exec(session["id"], ["true"])
    assert session["id"] in (await house.call("GET", "/metrics", None)).text
    assert session["id"] not in (await house.call("GET", "/metrics", None, headers={"origin": PAGE})).text


async def test_the_settings_name_origins_for_the_rest(open_house: Opener) -> None:
    async with open_house(api={"cors_origins": f"{PAGE}, http://localhost:3000"}) as house:
        for origin in (PAGE, "http://localhost:3000"):
            preflight = await house.call(
                "OPTIONS", "/v1/sessions/x", None, headers=asked("DELETE", "authorization, idempotency-key", origin)
            )
            assert (preflight.status_code, preflight.headers[ALLOWED]) == (200, origin)
            answer = await house.call("GET", "/v1/sessions", ALICE, headers={"origin": origin})
            assert (answer.headers[ALLOWED], answer.headers["vary"]) == (origin, "Origin")
            for one in (preflight, answer):
                assert "access-control-allow-credentials" not in one.headers
        for origin in ("https://evil.example", "null", f"{PAGE}.evil.example", "http://app.example"):
            preflight = await house.call("OPTIONS", "/v1/sessions", None, headers=asked("GET", origin=origin))
            assert preflight.status_code == 400 and ALLOWED not in preflight.headers
            answer = await house.call("GET", "/v1/sessions", ALICE, headers={"origin": origin})
            assert answer.status_code == 200 and ALLOWED not in answer.headers
        assert house.keys.looks > 0


async def test_all_origins_are_allowed_without_cookies(open_house: Opener) -> None:
    async with open_house(api={"cors_origins": "*"}) as house:
        answer = await house.call("GET", "/v1/sessions", ALICE, headers={"origin": PAGE, "cookie": "a=b"})
        assert answer.headers[ALLOWED] == "*" and "access-control-allow-credentials" not in answer.headers


async def test_what_is_no_preflight_goes_through_the_door(house: House) -> None:
    assert (await house.call("OPTIONS", "/execute", None)).status_code == 401
    assert (await house.call("OPTIONS", "/execute", None, headers={"origin": PAGE})).status_code == 401


async def test_programs_in_sandboxes_answer_for_themselves(open_house: Opener) -> None:
    async with open_house(api={"cors_origins": PAGE}) as house:
        path = "/preview/sess_000000000000/80/page"
        preflight: Any = await house.call("OPTIONS", path, None, headers=asked("GET"))
        assert ALLOWED not in preflight.headers and preflight.status_code >= 400


async def test_at_its_own_port_testbases_paths_are_readable_and_no_others(open_house: Opener) -> None:
    async with open_house(**EVERYTHING) as house, beside(house.app) as urls:
        for path in ("/execute", "/sessions", "/metrics/history", "/health"):
            answer = await house.http.get(urls["testbase"] + path, headers={"origin": PAGE})
            assert answer.headers[ALLOWED] == "*", path
        for name, path in (
            ("testbase", "/metrics"), ("testbase", "/openapi.json"), ("testbase", "/"), ("testbase", "/nothing"),
            ("sandbox", "/health"), ("sandbox", "/execute"),
        ):  # fmt: skip
            answer = await house.http.get(urls[name] + path, headers={"origin": PAGE})
            assert ALLOWED not in answer.headers, (name, path)
