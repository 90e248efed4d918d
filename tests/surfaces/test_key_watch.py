"""A07: what is open when its key is revoked or expires is ended; what was asked for goes on as without its client."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from atoll.domain.errors import Unauthenticated, Unavailable
from atoll.domain.group import Role
from atoll.domain.key import DEFAULT_SCOPES, Scope
from atoll.surfaces import key_watch
from atoll.surfaces.extensions import END
from atoll.telemetry.trace import Trace

LOOK_S = 0.05


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "LOOK_AGAIN_S", LOOK_S)


@pytest.fixture
async def session(house: Any) -> dict[str, Any]:
    return await house.create(command=["sleep", "600"])


async def everything(socket: Any) -> None:
    with pytest.raises(ConnectionClosed):
        while True:
            await asyncio.wait_for(socket.recv(), 5)


@pytest.mark.parametrize("path", ["attach", "exec?cmd=cat&tty=true", "exec?cmd=sleep%20600&protocol=json"])
async def test_a07_a_stream_is_closed_and_its_process_goes_on(house: Any, keys: Any, session: Any, path: str) -> None:
    async with house.socket(f"/v1/sessions/{session['id']}/{path}") as socket:
        process = socket.response.headers["atoll-process"]
        alice = house.keys.principals.pop(keys.ALICE)
        await everything(socket)
    assert (socket.close_code, socket.close_reason) == (1008, "the key is no longer valid")
    house.keys.principals[keys.ALICE] = alice
    listed = await house.call("GET", f"/v1/sessions/{session['id']}/processes")
    assert process in [found["id"] for found in listed.json()["processes"] if found["running"]]


LESS: dict[str, dict[str, Any]] = {
    "role": {"groups": {"grp_1": Role.MEMBER, "grp_2": Role.VIEWER}},
    "group": {"groups": {"grp_1": Role.ADMIN}},
    "scope": {"scopes": DEFAULT_SCOPES - {Scope.WRITE}},
    "bounds": {"resources": frozenset({"sess_1"})},
    "administrator": {"admin": False},
}


@pytest.mark.parametrize("lost", LESS)
async def test_a07_a_stream_is_closed_when_its_principal_may_do_less(
    house: Any, keys: Any, session: Any, lost: str
) -> None:
    groups = {"grp_1": Role.ADMIN, "grp_2": Role.VIEWER}
    alice = replace(house.keys.principals[keys.ALICE], scopes=DEFAULT_SCOPES, groups=groups, admin=True)
    house.keys.principals[keys.ALICE] = alice
    async with house.socket(f"/v1/sessions/{session['id']}/attach") as socket:
        more = {"grp_1": Role.ADMIN, "grp_2": Role.MEMBER, "grp_3": Role.VIEWER}
        house.keys.principals[keys.ALICE] = replace(alice, groups=more)
        await asyncio.sleep(3 * LOOK_S)
        assert socket.close_code is None  # more is no reason
        house.keys.principals[keys.ALICE] = replace(alice, **LESS[lost])
        await everything(socket)
    assert socket.close_code == 1008


async def test_a07_a_stream_that_takes_no_input_is_closed_too(house: Any, keys: Any, session: Any) -> None:
    async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=sleep%20600") as socket:
        sending = asyncio.create_task(_flood(socket))
        await asyncio.sleep(2 * LOOK_S)
        del house.keys.principals[keys.ALICE]
        await asyncio.wait([sending], timeout=5)
        assert sending.done()
        with pytest.raises(ConnectionClosed):
            await sending


async def _flood(socket: Any) -> None:
    while True:
        await socket.send(b"\x01\x00\x00\x80\x00" + bytes(32_768))


async def test_a07_an_answer_that_lasts_breaks_off(house: Any, keys: Any, session: Any) -> None:
    path = f"{house.url}/v1/sessions/{session['id']}/logs?follow=true"
    with pytest.raises(httpx2.RemoteProtocolError):
        async with house.http.stream("GET", path, headers=house.headers(keys.ALICE)) as answer:
            assert answer.status_code == 200
            del house.keys.principals[keys.ALICE]
            async for _ in answer.aiter_bytes():
                pass


async def test_a07_a_command_that_somebody_waits_for_ends(house: Any, keys: Any, session: Any) -> None:
    path = f"/v1/sessions/{session['id']}/exec"
    waiting = asyncio.create_task(house.call("POST", path, json={"command": ["sleep", "601"]}))
    await asyncio.sleep(2 * LOOK_S)
    alice = house.keys.principals.pop(keys.ALICE)
    with pytest.raises(httpx2.RemoteProtocolError):
        await waiting
    house.keys.principals[keys.ALICE] = alice
    running: list[list[str]] = []
    for _ in range(100):
        listed = (await house.call("GET", f"/v1/sessions/{session['id']}/processes")).json()["processes"]
        running = [found["command"] for found in listed if found["running"]]
        if running == [["sleep", "600"]]:
            break
        await asyncio.sleep(0.05)
    assert running == [["sleep", "600"]]


async def test_a_stream_outlives_a_store_that_does_not_answer_for_a_while(house: Any, session: Any) -> None:
    authenticate, looked, looks = house.keys.authenticate, asyncio.Event(), 0

    async def fails(_text: str) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            looked.set()
        raise Unavailable("the records do not answer")

    async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=cat") as socket:
        house.keys.authenticate = fails
        await asyncio.wait_for(looked.wait(), 5)
        house.keys.authenticate = authenticate
        await socket.send(b"\x01\x00\x00\x00\x01x")
        assert await asyncio.wait_for(socket.recv(), 5) == b"\x02\x00\x00\x00\x01x"


async def test_a_door_that_takes_long_to_know_the_key_does_not_end_the_watch() -> None:
    trace, cut = Trace("r"), asyncio.Event()

    async def revoked() -> None:
        assert trace.key_id is not None
        raise Unauthenticated

    def end(_code: int, _reason: str) -> bool:
        cut.set()
        return True

    with key_watch.watched({"type": "http", "trace": trace, "extensions": {END: end}}, revoked):
        await asyncio.sleep(4 * LOOK_S)
        assert not cut.is_set()
        trace.key_id = "key_a"
        await asyncio.wait_for(cut.wait(), 5)
