"""What one may ask how often: the protocol's windows by address, and the headers that tell of them (A15)."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

from atoll.domain.principal import Principal
from atoll.surfaces.bodies import json_response
from atoll.surfaces.operation import Answer, Operation
from atoll.surfaces.routing import routes
from atoll.surfaces.testbase.errors import EXECUTIONS, TestbaseDialect

LIMITED = {"error": "Too many requests", "message": "Rate limit exceeded. Please try again later."}
EXECUTIONS_LIMITED = {
    "error": "Too many execution requests",
    "message": "Execution rate limit exceeded. Please try again later.",
}


async def fine(_request: Request, _principal: Principal) -> Response:
    return json_response({})


def serve_testbase(house: Any) -> None:
    """Two routes of the dialect: one of every kind."""
    answer = (Answer(200, "fine"),)
    operations = [
        Operation("GET", "/look", fine, "look", "look", answers=answer),
        Operation("POST", "/run", fine, "run", "run", answers=answer, rates=(EXECUTIONS,)),
    ]
    found = house.app._asgi
    while not isinstance(found, Router):
        found = found._app
    found.routes.extend(routes(operations, house.app.door, TestbaseDialect()))


async def test_a_standard_key_has_a_hundred_requests_in_a_quarter_of_an_hour(office: Any) -> None:
    serve_testbase(office.house)
    key = (await office.make())["key"]
    answers = [await office.call("GET", "/look", key) for _ in range(101)]
    assert [answer.status_code for answer in answers] == [200] * 100 + [429]
    first, last = answers[0].headers, answers[-1]
    assert (first["ratelimit-policy"], first["ratelimit-limit"], first["ratelimit-remaining"]) == (
        "100;w=900",
        "100",
        "99",
    )
    assert 890 <= int(first["ratelimit-reset"]) <= 900
    assert last.json() == LIMITED
    assert last.headers["ratelimit-remaining"] == "0" and 800 < int(last.headers["retry-after"]) <= 900
    assert not [name for name in last.headers if name.startswith("x-ratelimit")]
    # another surface is not concerned
    assert (await office.call("GET", "/v1/sessions", key)).status_code == 200


async def test_executions_count_apart_and_in_the_whole(office: Any) -> None:
    serve_testbase(office.house)
    key = (await office.make())["key"]
    answers = [await office.call("POST", "/run", key) for _ in range(31)]
    assert [answer.status_code for answer in answers] == [200] * 30 + [429]
    assert answers[0].headers["ratelimit-limit"] == "30"
    assert answers[-1].json() == EXECUTIONS_LIMITED
    looked = await office.call("GET", "/look", key)
    assert (looked.status_code, looked.headers["ratelimit-remaining"]) == (200, "68")


async def test_the_administrator_on_this_machine_is_not_counted(office: Any) -> None:
    answers = [await office.call("GET", "/admin/keys") for _ in range(101)]
    assert {answer.status_code for answer in answers} == {200}
    assert "ratelimit-limit" not in answers[0].headers


async def test_what_is_refused_counts_too(open_office: Any) -> None:
    async with open_office(rates={"testbase": {"address_requests": 3}}) as office:
        answers = [await office.call("GET", "/admin/keys", "nonsense") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [403, 403, 403, 429, 429]
        assert answers[-1].json() == LIMITED


async def test_every_surface_has_rates_of_its_own_where_the_settings_say_so(open_office: Any) -> None:
    rates = {"computesdk": {"key_per_s": 0.01, "key_burst": 2}, "execbox": {"address_requests": 4}}
    async with open_office(rates=rates) as office:
        key = (await office.make())["key"]
        found = [await office.call("GET", "/api/filesystems", key) for _ in range(3)]
        assert [answer.status_code for answer in found] == [200, 200, 429]
        assert found[0].headers["ratelimit-policy"] == "2;w=200"
        found = [await office.call("GET", "/v1/sessions", key) for _ in range(5)]
        assert [answer.status_code for answer in found] == [200, 200, 200, 200, 429]
        assert found[0].headers["ratelimit-policy"] == "4;w=900"


async def test_a_key_is_told_what_it_has_left(office: Any) -> None:
    key = (await office.make())["key"]
    answer = await office.call("GET", "/v1/sessions", key)
    assert (answer.headers["ratelimit-policy"], answer.headers["ratelimit-remaining"]) == ("200;w=4", "199")


async def test_no_rate_holds_when_they_are_turned_off(open_office: Any) -> None:
    async with open_office(rates={"enabled": False, "testbase": {"address_requests": 1}}) as office:
        answers = [await office.call("GET", "/admin/keys", "nonsense") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {403}
        assert "ratelimit-limit" not in answers[0].headers


async def test_the_protocols_words_for_keys_that_open_nothing(office: Any) -> None:
    serve_testbase(office.house)
    ended, expired = await office.make(), await office.make(expiresIn=0.000001)
    await office.call("POST", f"/admin/keys/{ended['id']}/revoke")
    await asyncio.sleep(0.1)  # longer than it lives
    forbidden = {"error": "Forbidden", "message": "Invalid API key"}
    for key, status, body in (
        (expired["key"], 401, {"error": "Unauthorized", "message": "API key has expired"}),
        (ended["key"], 403, forbidden),
        ("tb_" + "0" * 64, 403, forbidden),
        ("ü", 401, None),
        (None, 401, None),
    ):
        headers = {} if key != "ü" else {"authorization": b"Bearer \xfc"}
        answer = await office.call("GET", "/look", None if key == "ü" else key, headers=headers)
        assert answer.status_code == status, key
        assert answer.json() == body or (body is None and answer.json()["message"].startswith("API key required."))
    # nobody else is told which of them it was
    told = {(await office.call("GET", "/v1/sessions", key)).text for key in (expired["key"], ended["key"], "sk_x")}
    assert len(told) == 1
