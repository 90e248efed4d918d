"""What the door says: of wrong paths, methods and queries. Who gets in where, tests/security/test_tenancy.py holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus


def operations(house: Any) -> Iterator[Any]:
    for route in house.app.routes:
        yield from route.operations


def target(operation: Any) -> str:
    """A path that its template matches."""
    return re.sub(r"{\w+(:path)?}", "nonsense", operation.path).replace("assets/nonsense", "assets/start.js")


async def test_w01_a_key_in_the_query_opens_nothing(house: Any, keys: Any) -> None:
    session = await house.create()
    answer = await house.call("GET", f"/v1/sessions/{session['id']}?api_key={keys.ALICE}", None)
    assert answer.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=true&api_key={keys.ALICE}", None):
            pass
    assert refused.value.response.status_code == 401


async def test_a_path_that_nobody_serves_is_a_404_in_the_envelope(house: Any) -> None:
    for path in ("/v1", "/v1/sessions/", "/v1/nothing", "//v1/sessions", "/v1/sessions/a/b/c/d"):
        answer = await house.call("GET", path, None)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND"), path
    with pytest.raises(InvalidStatus) as refused:
        async with house.socket("/v1/nothing"):
            pass
    assert refused.value.response.status_code == 404


async def test_a_wrong_method_is_told_only_to_those_who_are_let_in(house: Any) -> None:
    assert (await house.call("PATCH", "/v1/sessions", None)).status_code == 401
    answer = await house.call("PATCH", "/v1/sessions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.json()["code"] == "METHOD_NOT_ALLOWED"
    stream = await house.call("GET", "/v1/sessions/sess_0123456789ab/attach")
    assert (stream.status_code, stream.headers["upgrade"]) == (426, "websocket")


async def test_an_upgrade_of_what_is_no_websocket_is_a_wrong_method(house: Any, keys: Any) -> None:
    sockets = {operation.path for operation in operations(house) if operation.method == "WEBSOCKET"}
    others = {operation.path: operation for operation in operations(house) if operation.path not in sockets}
    with capture_logs() as logs:
        for path, operation in others.items():
            key = None if operation.public else keys.OWNER
            with pytest.raises(InvalidStatus) as refused:
                async with house.socket(target(operation), key):
                    pass
            answer = refused.value.response
            assert answer.status_code == 405 and answer.headers["allow"], path
            assert isinstance(json.loads(answer.body or b""), dict), path
    assert not [line for line in logs if line["log_level"] == "error"]
    assert {use[3] for use in house.keys.uses if use[0].startswith("key_0143")} == {405}


async def test_wrong_methods_of_public_paths_count_for_their_address_too(open_house: Any) -> None:
    async with open_house(rates={"address_per_s": 0.001, "address_burst": 2}) as house:
        proxied = {"x-forwarded-for": "203.0.113.5"}
        found = [(await house.call("PATCH", "/health", None, headers=proxied)).status_code for _ in range(3)]
        assert found == [405, 405, 429]
        with pytest.raises(InvalidStatus) as refused:
            async with house.socket("/health", None, additional_headers=proxied):
                pass
        assert refused.value.response.status_code == 429


async def test_authorisation_goes_by_the_matched_route_and_not_by_the_host_header(house: Any) -> None:
    answer = await house.call("GET", "/v1/sessions", None, headers={"host": "x/health?"})
    assert answer.status_code in (400, 401)


async def test_an_unknown_query_parameter_is_named_to_those_who_are_let_in(house: Any) -> None:
    session = await house.create()
    assert (await house.call("DELETE", f"/v1/sessions/{session['id']}?remvoe=true", None)).status_code == 401
    answer = await house.call("DELETE", f"/v1/sessions/{session['id']}?remvoe=true")
    assert (answer.status_code, answer.json()["field"]) == (400, "remvoe")
    assert (await house.call("GET", f"/v1/sessions/{session['id']}")).json()["status"] == "running"
