"""WebSockets through a preview: messages both ways as they are, subprotocols, codes, and bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from socket import socketpair
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from atoll.gateway.previews import websockets
from atoll.gateway.previews.heads import Asked, Asking
from atoll.gateway.previews.limits import CarryLimits
from atoll.gateway.previews.wire import HELD_BYTES
from tests.surfaces.conftest import ALICE, BOB
from tests.surfaces.previews.conftest import UPGRADE, Street, Streets, answering


@asynccontextmanager
async def program(street: Street, handler: Any, **how: Any) -> AsyncIterator[list[Any]]:
    """A real WebSocket server as the program on the port; the requests that it got."""
    requests: list[Any] = []

    async def noted(connection: ServerConnection) -> None:
        requests.append(connection.request)
        await handler(connection)

    async with serve(noted, "127.0.0.1", 0, **how) as server:
        port = next(iter(server.sockets)).getsockname()[1]

        async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs, ours = await asyncio.open_connection("127.0.0.1", port)

            async def copy(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
                while data := await one.read(65_536):
                    other.write(data)
                    await other.drain()
                other.close()

            try:
                await asyncio.gather(copy(reader, ours), copy(theirs, writer), return_exceptions=True)
            finally:
                ours.transport.abort()

        street.serve(join)
        yield requests


async def test_a_credential_among_the_subprotocols_goes_no_further(open_street: Streets) -> None:
    async with open_street() as street, program(street, echo, subprotocols=["chat"]) as requests:
        await street.register(public=True)
        async with street.house.socket(street.path(), subprotocols=[f"atoll.token.{BOB}", "chat"]) as socket:
            assert socket.subprotocol == "chat"
        assert BOB not in str(requests[0].headers)


async def test_messages_of_more_bytes_than_characters_go_on_and_on(open_street: Streets) -> None:
    async with open_street() as street, program(street, echo):
        await street.register()
        async with street.house.socket(street.path()) as socket, asyncio.timeout(5):
            for _ in range(12):
                await socket.send("\u20ac" * 10_000)
                assert len(await socket.recv()) == 10_000


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_messages_go_both_ways_as_text_and_as_bytes(open_street: Streets) -> None:
    async with open_street() as street, program(street, echo, subprotocols=["chat"]) as requests:
        await street.register()
        where = street.path("/live?x=1")
        async with street.house.socket(where, subprotocols=["chat", "other"]) as socket:
            assert socket.subprotocol == "chat"
            for message in ("text ü", b"\x00\xff", "", b"x" * 300_000):
                await socket.send(message)
                assert await socket.recv() == message
        (request,) = requests
        assert request.path == "/live?x=1"
        assert "authorization" not in request.headers
        assert request.headers["x-forwarded-prefix"] == f"/preview/{street.sandbox}/3000"
        await street.quiet()


async def test_the_codes_of_both_sides_arrive(open_street: Streets) -> None:
    ended: list[int | None] = []

    async def handler(connection: ServerConnection) -> None:
        try:
            if await connection.recv() == "close":
                await connection.close(4001, "enough")
            await connection.recv()
        except ConnectionClosed:
            ended.append(connection.close_code)

    async with open_street() as street, program(street, handler):
        await street.register()
        async with street.house.socket(street.path()) as socket:
            await socket.send("close")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (4001, "enough")
        async with street.house.socket(street.path()) as socket:
            await socket.send("stay")
            await socket.close(4002, "bye")
        await street.quiet()
        assert ended[-1] == 4002


async def test_w05_a_message_that_is_too_large_ends_with_1009_on_either_side(open_street: Streets) -> None:
    async def shouts(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(b"x" * 200_000)
        await connection.wait_closed()

    bound = {"server": {"port": 0, "drain_s": 2, "frame_bytes": 100_000}}
    async with open_street(more_settings=bound) as street, program(street, shouts):
        await street.register()
        async with street.house.socket(street.path()) as socket:
            with pytest.raises(ConnectionClosed):
                await socket.send(b"x" * 100_001)
                await socket.recv()
            assert socket.close_code == 1009
        async with street.house.socket(street.path()) as socket:
            await socket.send("shout")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1009
        await street.quiet()


async def test_a_program_that_dies_ends_the_socket(open_street: Streets) -> None:
    async def dies(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async with open_street() as street, program(street, dies):
        await street.register()
        async with street.house.socket(street.path()) as socket:
            await socket.send("x")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1014


async def test_who_may_not_look_gets_no_socket(open_street: Streets) -> None:
    async with open_street() as street, program(street, echo):
        await street.register()
        for key, status in ((None, 401), (BOB, 404)):
            with pytest.raises(InvalidStatus) as refused:
                await street.house.socket(street.path(), key).__aenter__()
            assert refused.value.response.status_code == status
        token = await street.token()
        async with street.house.socket(street.path(f"/?preview_token={token}"), None) as socket:
            await socket.send("x")
            assert await socket.recv() == "x"
        cookie = {"cookie": f"atoll_preview={token}"}
        for origin, opens in (("http://evil.example", False), (street.house.url, True)):
            headers = cookie | {"origin": origin}
            if opens:
                async with street.house.socket(street.path(), None, additional_headers=headers):
                    pass
            else:
                with pytest.raises(InvalidStatus):
                    await street.house.socket(street.path(), None, additional_headers=headers).__aenter__()


async def test_a_program_without_websockets_refuses_for_itself(open_street: Streets) -> None:
    async with open_street() as street:
        answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nx-own: 1\r\n\r\nnone"
        street.serve(answering([], answer))
        await street.register()
        with pytest.raises(InvalidStatus) as refused:
            await street.house.socket(street.path()).__aenter__()
        assert (refused.value.response.status_code, refused.value.response.body) == (404, b"none")
        assert refused.value.response.headers["x-own"] == "1"
        await street.quiet()


async def test_a_socket_goes_on_at_a_fallback(open_street: Streets) -> None:
    async with open_street() as street, program(street, echo):
        other = (await street.house.create())["id"]
        street.programs[other, 3000] = street.programs.pop((street.sandbox, 3000))
        await street.register(fallback_sandbox_id=other)
        async with street.house.socket(street.path(), ALICE) as socket:
            await socket.send("x")
            assert await socket.recv() == "x"


async def test_w06_a_flood_of_a_programs_frames_leaves_turns_to_others_and_is_held_within_bounds(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = counted_turns(monkeypatch)
    held: list[int] = []
    see = websockets.Channel._see

    def looked_at(self: Any, protocol: Any) -> None:
        see(self, protocol)
        held.append(len(self._messages))

    monkeypatch.setattr(websockets.Channel, "_see", looked_at)

    async def flood(connection: ServerConnection) -> None:
        connection.transport.write(b"\x82\0" * 50_000)
        await connection.send("the last")
        await connection.wait_closed()

    async with open_street() as street, program(street, flood):
        await street.register()
        async with street.house.socket(street.path(), max_queue=None) as socket, asyncio.timeout(30):
            empty = 0
            while await socket.recv() == b"":
                empty += 1
    assert empty == 50_000
    assert max(taken) < 2 * websockets.FRAMES_PER_TURN
    assert max(held) <= (websockets.HELD_BYTES / websockets.MESSAGE_BYTES) + 2 * websockets.FRAMES_PER_TURN


def counted_turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames of ports are looked at in each turn of the event loop."""
    turns = [0]
    see = websockets.Channel._see

    def counted(self: Any, protocol: Any) -> None:
        if not turns[-1]:
            asyncio.get_running_loop().call_soon(turns.append, 0)
        turns[-1] += len(protocol.events)
        see(self, protocol)

    monkeypatch.setattr(websockets.Channel, "_see", counted)
    return turns


async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The program's side of the handshake; what it sends then is its own."""
    protocol = ServerProtocol()
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    writer.write(b"".join(protocol.data_to_send()))


@pytest.mark.parametrize("frames", [b"\x89\0" * 20_000, b"\x02\0" + b"\0\0" * 20_000], ids=["pings", "fragments"])
async def test_w10_frames_of_a_program_that_carry_nothing_end_its_socket_and_leave_turns_to_others(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch, frames: bytes
) -> None:
    turns = counted_turns(monkeypatch)

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer)
        writer.write(frames)
        await reader.read()

    async with open_street() as street:
        street.serve(floods)
        await street.register()
        async with street.house.socket(street.path()) as socket, asyncio.timeout(10):
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1008
        await street.quiet()
    assert max(turns) < 2 * websockets.FRAMES_PER_TURN
    assert sum(turns) < websockets.IDLE_FRAMES_PER_S + 2 * websockets.FRAMES_PER_TURN


async def test_a_program_that_reads_no_pongs_is_owed_the_last_one_and_they_do_not_pile_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websockets, "IDLE_FRAMES_PER_S", 10**9)
    ours, theirs = socketpair()
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=theirs)
    channel = websockets.Channel(ours, CarryLimits())
    most = 0
    try:
        asked = Asked(3000, "", b"x", "http", "127.0.0.1")
        opening = asyncio.create_task(channel.open(b"/", asked, Asking([]), []))
        await accepted(reader, writer)
        await opening
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(20_000):
            writer.write(b"\x89\x7d" + b"%0125d" % number)
            if number % 100 == 0:
                await asyncio.sleep(0)
                most = max(most, len(channel._wire._out))
        async with asyncio.timeout(10):
            await writer.drain()
            while not channel._pong:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert most < HELD_BYTES + 2 * 131 * websockets.FRAMES_PER_TURN
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        last = ServerProtocol(state=State.OPEN)
        async with asyncio.timeout(10):
            while True:
                last.receive_data(await reader.read(65_536))
                if any(frame.data == b"%0125d" % 19_999 for frame in last.events_received()):
                    break
    finally:
        channel.cut()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"


@pytest.mark.parametrize(
    "piece", [b"x-a: " + b"a" * 100_000 + b"\r\n", b"x-a: b\r\n" * 100, b"a" * 65_536], ids=["long", "many", "one line"]
)
async def test_the_head_of_an_answer_to_a_handshake_is_bounded_before_it_is_parsed(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    parsed = 0
    receive = ClientProtocol.receive_data

    def counted(self: Any, data: bytes) -> None:
        nonlocal parsed
        parsed += len(data)
        receive(self, data)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHING)
        for _ in range(64):
            writer.write(piece)
            await writer.drain()
        writer.write(b"\r\n\r\n")
        await reader.read()

    async with open_street() as street:
        street.serve(endless)
        await street.register()
        monkeypatch.setattr("atoll.gateway.previews.websockets.ClientProtocol.receive_data", counted)
        said = await street.raw(
            f"GET {street.path()} HTTP/1.1\r\nhost: x\r\nx-api-key: {ALICE}\r\n{UPGRADE}\r\n".encode()
        )
        assert said.startswith(b"HTTP/1.1 502 ")
        assert b"too large" in said
        assert parsed == 0
        await street.quiet()


async def test_a_refusal_of_a_handshake_may_have_a_body_and_no_endless_one(open_street: Streets) -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n186a0\r\n" + b"n" * 100_000)
        writer.write(b"\r\n0\r\n" + b"x-t: a\r\n" * (50_000 if b"endless" in line else 0) + b"\r\n")
        await reader.read()

    async with open_street() as street:
        street.serve(refuses)
        await street.register()
        for path, status in (("/", 403), ("/endless", 502)):
            with pytest.raises(InvalidStatus) as refused:
                await street.house.socket(street.path(path)).__aenter__()
            assert refused.value.response.status_code == status
        await street.quiet()


async def test_the_answer_to_a_handshake_is_not_kept(open_street: Streets, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    take = websockets.Channel._take

    def noted(self: Any, data: bytes) -> None:
        made.append(self)
        take(self, data)

    monkeypatch.setattr(websockets.Channel, "_take", noted)
    async with open_street() as street, program(street, echo):
        await street.register()
        async with street.house.socket(street.path()):
            assert not made[0]._answer.headers
            assert (made[0]._head, len(made[0]._unparsed.obj)) == (None, 0)


async def test_a_fragment_of_an_address_goes_no_further(open_street: Streets) -> None:
    async with open_street() as street, program(street, echo) as requests:
        await street.register(public=True)
        for rest in ("/a?x=1#b", "/a#b?x=1", "/a"):
            host, port = street.house.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {street.path(rest)} HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            writer.close()
            await writer.wait_closed()
        assert [one.path for one in requests] == ["/a?x=1", "/a", "/a"]


@pytest.mark.parametrize("talks", [False, True], ids=["a silent program", "one that talks"])
async def test_w08_a_vanished_client_is_noticed_before_the_second_ping_and_its_program_told_once(
    open_street: Streets, monkeypatch: pytest.MonkeyPatch, *, talks: bool
) -> None:
    monkeypatch.setattr("atoll.surfaces.serving.PING_INTERVAL_S", 0.3)
    monkeypatch.setattr("atoll.surfaces.serving.PING_TIMEOUT_S", 0.2)
    monkeypatch.setattr("atoll.surfaces.websocket_transport.LINGER_S", 0.05)
    ended: list[int | None] = []

    async def handler(connection: ServerConnection) -> None:
        try:
            while talks:
                await connection.send(b"x" * 60_000)
            await connection.recv()
        except ConnectionClosed:
            ended.append(connection.close_code)

    async with open_street() as street, program(street, handler):
        await street.register(public=True)
        host, port = street.house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"GET {street.path()} HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            if talks:
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # as if nothing of it came any more
            else:
                async with asyncio.timeout(10):
                    frames = await reader.read()
                assert (frames[:1], frames.count(b"\x89\x04"), frames.count(b"\x88")) == (b"\x89", 1, 1)
            await street.quiet()
            async with asyncio.timeout(5):
                while not ended:  # noqa: ASYNC110  # the program's own task hears of it a few turns later
                    await asyncio.sleep(0.01)
            assert len(ended) == 1
            async with asyncio.timeout(5):
                while street.house.app.showing.pool.open:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_socket_that_breaks_off_once_it_is_open_is_no_reason_for_a_fallback(open_street: Streets) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted(reader, writer)
        await asyncio.Event().wait()

    async with open_street(more_settings={"previews": {"idle_s": 0.3}}) as street:
        other = (await street.house.create())["id"]
        street.serve(deaf)
        await street.register(fallback_sandbox_id=other)
        async with street.house.socket(street.path()) as socket, asyncio.timeout(5):
            with pytest.raises(ConnectionClosed):
                while True:
                    await socket.send(b"x" * 60_000)
        assert socket.close_code == 1014
        (shown,) = (await street.house.call("GET", "/preview/list")).json().values()
        assert shown["use_fallback"] is False
