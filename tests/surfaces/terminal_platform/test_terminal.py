"""The Sandbox API's terminal: what is typed, what is a size, who gets in and how, and what the end is told by."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from atoll.surfaces.terminal_socket import resize_of
from tests.surfaces.terminal_platform.test_sandboxes import make


async def reads(socket: Any, text: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(5):
        while text not in seen:
            data = await socket.recv()
            assert isinstance(data, bytes)
            seen += data
    return seen


async def test_text_and_bytes_are_typed_and_output_is_bytes(house: Any) -> None:
    box = await make(house)
    async with house.socket(f"/sandboxes/{box}/terminal?cols=100&rows=40") as socket:
        assert socket.response.headers["atoll-offset"] == "0"
        await socket.send("echo te''xt\r")
        await reads(socket, b"\r\ntext\r\n")
        await socket.send(b"stty\r")
        await reads(socket, b"40 100\r\n")
        await socket.send('{"type":"resize","cols":120,"rows":50}')
        await socket.send("stty\r")
        await reads(socket, b"50 120\r\n")
        await socket.send(b'{"type":"resize","cols":1,"rows":1}')  # bytes are typed, whatever they say
        seen = await reads(socket, b"}")
        assert b'{"type":"resize","cols":1,"rows":1}' in seen


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"resize","cols":80}',
        '{"type":"resize","cols":80,"rows":24,"more":1}',
        '{"type":"resize","cols":"80","rows":24}',
        '{"type":"resize","cols":0,"rows":24}',
        '{"type":"resize","cols":65536,"rows":24}',
        '{"type":"resize","cols":true,"rows":24}',
        '{"type":"size","cols":80,"rows":24}',
        'x{"type":"resize","cols":80,"rows":24}',
        '{"type":"resize","cols":80,"rows":24}\r',
        '{"type":"resize",' + " " * 128 + '"cols":80,"rows":24}',
        "[1]",
        "{",
    ],
)
def test_what_is_not_exactly_a_size_is_typed(text: str) -> None:
    assert resize_of(text) is None
    assert resize_of('{"rows":24,"cols":80,"type":"resize"}') == (80, 24)


async def test_w10_who_comes_back_gets_what_was_missed_and_the_exit_once(house: Any) -> None:
    box = await make(house)
    path = f"/sandboxes/{box}/terminal?terminal=work"
    async with house.socket(path) as socket:
        await socket.send("echo on''e\r")
        seen = await reads(socket, b"one\r\n$ ")
    async with house.socket(path) as again, house.socket(f"{path}&offset={len(seen)}") as later:
        assert await reads(again, b"one\r\n$ ") == seen
        assert later.response.headers["atoll-offset"] == str(len(seen))
        await again.send("exit 7\r")
        assert await reads(later, b"exit 7\r\n") == b"exit 7\r\n"
        for socket in (later, again):
            with pytest.raises(ConnectionClosed) as closed:
                await reads(socket, b"never")
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "exit 7")
    async with house.socket(f"{path}&offset={len(seen)}") as late:
        assert await late.recv() == b"exit 7\r\n"
        with pytest.raises(ConnectionClosed, match="exit 7"):
            await late.recv()
    async with house.socket(path) as fresh:
        assert await reads(fresh, b"$ ") == b"$ "


async def test_w01_nobody_gets_in_before_the_upgrade_without_a_credential_that_opens_it(house: Any, keys: Any) -> None:
    box = await make(house)
    path = f"/sandboxes/{box}/terminal"
    for where, key, status, said in (
        (path, None, 401, "Authorization header must start with 'Bearer '"),
        (path, "sk_" + "00" * 32, 401, "Invalid or expired token"),
        (path, keys.BOB, 404, "Sandbox not found"),
        ("/sandboxes/sess_0123456789ab/terminal", keys.ALICE, 404, "Sandbox not found"),
        ("/sandboxes/nothing/terminal", keys.ALICE, 404, "Sandbox not found"),
        (f"{path}?token={keys.ALICE}", None, 401, "Authorization header must start with 'Bearer '"),
        (path, keys.READER, 403, None),
        (f"{path}?cols=0", keys.ALICE, 422, None),
        (f"{path}?terminal=a/b", keys.ALICE, 422, None),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with house.socket(where, key):
                pass
        answer = refused.value.response
        assert answer.status_code == status, where
        assert said is None or json.loads(answer.body or b"") == {"detail": said}
    assert not house.host.sandboxes[box].processes
    plain = await house.call("GET", path)
    assert plain.status_code == 426


async def test_a_token_of_a_minute_opens_it_where_no_header_can_be_sent(house: Any) -> None:
    box = await make(house, sandbox_id="mine")
    made = (await house.call("POST", f"/sandboxes/{box}/terminal/token")).json()
    assert made["token"].startswith("sbt_")
    assert made["expires_in"] == 60
    async with house.socket(made["url"], None) as socket:
        await reads(socket, b"$ ")
    async with house.socket("/sandboxes/mine/terminal", None, subprotocols=[f"atoll.token.{made['token']}"]) as socket:
        assert socket.subprotocol == f"atoll.token.{made['token']}"
        await reads(socket, b"$ ")
    assert (await house.call("POST", f"/sandboxes/{box}/exec", made["token"], json={"command": "true"})).is_error


async def test_w06_an_input_flood_and_more_sockets_than_a_key_may_have(open_house: Any) -> None:
    async with open_house(limits={"ws_per_key": 2}) as house:
        box = await make(house)
        path = f"/sandboxes/{box}/terminal"
        async with house.socket(path) as one, house.socket(f"{path}?terminal=two"):
            with pytest.raises(InvalidStatus) as refused:
                async with house.socket(path):
                    pass
            assert refused.value.response.status_code == 429
            for _ in range(1_000):
                await one.send("x")
            await one.send("\r\necho do''ne\r")
            await reads(one, b"done\r\n")
        assert (await house.call("GET", "/health")).status_code == 200


async def test_the_end_of_a_sandbox_closes_its_terminals_and_tells_why(house: Any) -> None:
    box = await make(house)
    async with house.socket(f"/sandboxes/{box}/terminal") as socket:
        await reads(socket, b"$ ")
        assert (await house.call("DELETE", f"/sandboxes/{box}")).status_code == 200
        with pytest.raises(ConnectionClosed) as closed:
            await reads(socket, b"never")
        assert closed.value.rcvd.code == 1001


async def test_computesdk_has_the_same_terminal_by_its_own_name(house: Any, keys: Any) -> None:
    box = await make(house)
    path = f"/compute/{box.replace('sess_', 'cmp_')}/terminal"
    async with house.socket(path) as socket, house.socket(f"/sandboxes/{box}/terminal") as same:
        await socket.send("echo he''re\r")
        await reads(same, b"here\r\n")
    own = (await house.call("POST", "/sandboxes", json={"sandbox_id": "mine"})).json()["sandbox_id"]
    async with house.socket(f"/compute/{own}/terminal") as socket:
        await socket.send("echo he''re\r")
        await reads(socket, b"here\r\n")
    for foreign in (path, f"/compute/{own}/terminal"):
        with pytest.raises(InvalidStatus) as refused:
            async with house.socket(foreign, keys.BOB):
                pass
        assert refused.value.response.status_code == 404
    said = json.loads(refused.value.response.body or b"")
    assert (refused.value.response.status_code, said["error"]) == (404, "not_found")
