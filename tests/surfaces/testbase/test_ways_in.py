"""The ways a credential comes in: headers in their order, the query only where the settings say so, never a cookie."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from tests.surfaces.testbase.conftest import ADMIN

LIST = "/v1/sessions"


@pytest.mark.parametrize("header", ["X-API-Key", "x-api-key", "X-ComputeSDK-API-Key"])
async def test_a_key_comes_in_by_headers(office: Any, header: str) -> None:
    key = (await office.make())["key"]
    assert (await office.call("GET", LIST, None, headers={header: key})).status_code == 200
    assert (await office.call("GET", LIST, None, headers={header: key[:-1]})).status_code == 401
    assert (await office.call("GET", LIST, key, headers={header: key})).status_code == 200


@pytest.mark.parametrize("header", ["X-API-Key", "X-ComputeSDK-API-Key"])
async def test_two_different_credentials_are_refused(office: Any, header: str) -> None:
    one, two = (await office.make())["key"], (await office.make())["key"]
    answer = await office.call("GET", LIST, one, headers={header: two})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


async def test_what_is_no_bearer_does_not_hide_a_key(office: Any) -> None:
    key = (await office.make())["key"]
    headers = {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": key}
    assert (await office.call("GET", LIST, None, headers=headers)).status_code == 200


@pytest.mark.parametrize("name", ["api_key", "token", "key"])
async def test_the_query_opens_nothing_unless_the_settings_say_so(office: Any, name: str) -> None:
    key = (await office.make())["key"]
    assert (await office.call("GET", f"{LIST}?{name}={key}", None)).status_code == 401
    assert (await office.call("GET", f"{LIST}?{name}={key}", key)).status_code == 400


async def test_who_sends_a_key_in_the_query_is_told_what_turns_that_on(office: Any) -> None:
    key = (await office.make())["key"]
    for query, hinted in ((f"?api_key={key}", True), ("", False), ("?key=x", False)):
        refused = await office.call("POST", f"/execute{query}", None, json={"task": "x", "workspaceId": "w"})
        assert refused.status_code == 401
        assert refused.json()["message"].endswith("or api_key query parameter.")
        assert ("keys.in_query" in refused.json().get("hint", "")) is hinted
        assert key not in refused.text


async def test_w02_no_cookie_opens_anything(office: Any) -> None:
    key = (await office.make())["key"]
    for name in ("api_key", "token", "session", "authorization"):
        answer = await office.call("GET", LIST, None, headers={"cookie": f"{name}={key}"})
        assert answer.status_code == 401


async def test_a_key_in_the_query_where_it_is_allowed(open_office: Any) -> None:
    async with open_office(keys={"in_query": True}) as office:
        made = await office.make()
        key = made["key"]
        with capture_logs() as logs:
            assert (await office.call("GET", f"{LIST}?api_key={key}&status=running", None)).status_code == 200
            assert (await office.call("GET", f"{LIST}?status=running&api_key={key}", key)).status_code == 200
        assert key not in repr(logs)
        assert (await office.call("GET", f"{LIST}?api_key={key[:-1]}", None)).status_code == 401
        assert (await office.call("GET", f"{LIST}?api_key={key}", ADMIN)).status_code == 400
        assert (await office.call("GET", f"{LIST}?api_key={key}&api_key={key}1", None)).status_code == 400
        assert (await office.call("GET", f"{LIST}?api_key={key}&status=nonsense", None)).status_code == 400
        assert (await office.call("GET", f"{LIST}?token={key}", None)).status_code == 401


async def test_a_token_in_the_query_of_a_stream_where_it_is_allowed_and_in_no_log(
    open_office: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = logging.getLogger("uvicorn.error")  # what other tests have started may have turned it off
    monkeypatch.setattr(access, "propagate", True)
    monkeypatch.setattr(access, "disabled", False)
    async with open_office(keys={"token_in_query": True}) as office:
        key = (await office.make())["key"]
        session = await office.house.create(key, command=["sleep", "60"])
        path = f"/v1/sessions/{session['id']}/attach?protocol=json"
        with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "uvicorn.error"), capture_logs() as logs:
            async with office.house.socket(f"{path}&token={key}", None) as socket:
                assert socket.response.status_code == 101
            with pytest.raises(InvalidStatus) as refused:
                async with office.house.socket(f"{path}&token={key[:-1]}", None):
                    pass
        assert refused.value.response.status_code == 401
        assert key[:-1] not in repr(logs)
        told = "".join(record.getMessage() for record in caplog.records)
        assert "protocol=json" in told and key[:-1] not in told
        assert (await office.call("GET", f"{LIST}?token={key}", None)).status_code == 401


async def test_a15_guesses_are_counted_whichever_way_they_come(open_office: Any) -> None:
    async with open_office(rates={"refused_burst": 8, "refused_per_s": 0.001}, keys={"in_query": True}) as office:
        ways = (
            ("GET", LIST, {"authorization": "Bearer {}"}),
            ("GET", LIST, {"x-api-key": "{}"}),
            ("GET", LIST, {"x-computesdk-api-key": "{}"}),
            ("GET", "/admin/keys", {"x-admin-key": "{}"}),
            ("GET", LIST + "?api_key={}", {}),
        )
        statuses: list[int] = []
        for n in range(40):
            method, path, headers = ways[n % len(ways)]
            guess = f"sk_{n:064x}"
            given = {name: value.format(guess) for name, value in headers.items()}
            answer = await office.call(method, path.format(guess), None, headers=given)
            statuses.append(answer.status_code)
        assert set(statuses[:8]) == {401, 403}
        assert set(statuses[8:]) == {429}
