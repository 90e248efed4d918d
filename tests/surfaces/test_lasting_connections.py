"""Clients that flood, send too much or vanish, at each socket that stays open: terminals, the daemon's, the events'."""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from atoll.domain.event import Event
from atoll.surfaces import websocket_transport
from tests.surfaces.conftest import ALICE, BOB, House
from tests.surfaces.test_transport import UPGRADE, close_code, frame

SOCKETS = ("/sandboxes/{id}/terminal", "/compute/{cmp}/terminal", "/sb/{id}/ws")
EVENTS = "/api/events/stream"
SO_ATTACH_FILTER = 26
PING_S = 0.3


@asynccontextmanager
async def opened(house: House, path: str, extra: bytes = b"") -> AsyncIterator[tuple[Any, Any]]:
    """A connection whose bytes the test makes itself, after the answer's head."""
    upgrade = UPGRADE if path != EVENTS else b"Host: x\r\nAuthorization: Bearer %b\r\n" % ALICE.encode()
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path.encode(), upgrade, extra))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")), head
        assert b"permessage-deflate" not in head
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def place(house: House, path: str) -> str:
    """The path of a new sandbox of Alice's."""
    made = (await house.create(command=["sleep", "600"]))["id"]
    return path.format(id=made, cmp=made.replace("sess_", "cmp_"))


async def settled(what: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not await what():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def fragments() -> bytes:
    return frame(2, b"x" * 60_000, fin=False) + frame(0, b"x" * 60_000, fin=False) * 30


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\xff" + struct.pack("!Q", 64 * 2**20) + bytes(4), 1009),
        (fragments(), 1009),
        (b"\xc2\x85" + bytes(4) + b"bombs", 1002),  # compressed, which nobody agreed upon
    ],
    ids=["a length alone", "endless fragments", "a bomb"],
)
async def test_w05_what_is_too_large_ends_its_own_connection_only(
    house: House, path: str, sent: bytes, code: int
) -> None:
    where = await place(house, path)
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    async with opened(house, where) as (other, others), opened(house, where, offer) as (reader, writer):
        writer.write(sent)
        assert await close_code(reader) == code
        others.write(frame(9, b"are you there"))
        await asyncio.wait_for(other.readuntil(b"\x8a\x0dare you there"), 10)


@pytest.mark.parametrize("path", SOCKETS)
async def test_w06_a_ping_flood_ends_its_connection_and_health_stays_up(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(websocket_transport, "IDLE_FRAMES_PER_S", 500)
    async with opened(house, await place(house, path)) as (reader, writer):
        writer.write(frame(9, b"") * 20_000)
        assert await close_code(reader) == websocket_transport.CLOSE_FLOOD
    assert (await house.call("GET", "/health", None)).status_code == 200


async def test_w06_a_keys_connections_are_counted_over_all_kinds_of_sockets(open_house: Any) -> None:
    async with open_house(limits={"ws_per_key": len(SOCKETS)}) as house:
        where = [await place(house, path) for path in SOCKETS]
        async with AsyncExitStack() as stack:
            for path in where:
                await stack.enter_async_context(house.socket(path))
            for path in where:
                with pytest.raises(InvalidStatus) as refused:
                    await stack.enter_async_context(house.socket(path))
                assert refused.value.response.status_code == 429, path
            own = (await house.create(BOB))["id"]
            await stack.enter_async_context(house.socket(f"/sandboxes/{own}/terminal", BOB))
            assert (await house.call("GET", "/health", None)).status_code == 200

        async def is_free() -> bool:
            try:
                async with house.socket(where[0]):
                    return True
            except InvalidStatus:
                return False

        await settled(is_free)


async def test_w06_who_asks_without_end_and_reads_nothing_is_read_no_further(house: House) -> None:
    asked = frame(1, json.dumps({"type": "ping", "data": {}}).encode()) * 1_000
    async with opened(house, await place(house, "/sb/{id}/ws")) as (reader, writer):
        reader._transport.pause_reading()
        sent = 0
        with pytest.raises(TimeoutError):  # else the server keeps what it would answer
            while sent < 128 * 2**20:
                writer.write(asked)
                sent += len(asked)
                await asyncio.wait_for(writer.drain(), 1.0)
        assert (await house.call("GET", "/health", None)).status_code == 200


def vanish(writer: asyncio.StreamWriter) -> None:
    """From now on this machine takes no packet of the connection, as if it had lost its network."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.parametrize("path", [*SOCKETS, EVENTS])
async def test_w08_a_machine_that_vanished_is_noticed_and_what_ran_runs_on(
    open_house: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("atoll.surfaces.serving.PING_INTERVAL_S", PING_S)
    monkeypatch.setattr("atoll.surfaces.serving.PING_TIMEOUT_S", 0.8 * PING_S)
    monkeypatch.setattr(websocket_transport, "PEER_GONE_MS", round(1_000 * PING_S))
    async with open_house(limits={"ws_per_key": 1}, audit={"streams_per_key": 1}) as house:
        where = await place(house, path)

        async def is_free() -> bool:
            """There is room for one connection: it is free again once nobody believes in the last."""
            await house.records.add_events([Event("file.changed", "t", "key_a11ce0000000", "key_a11ce0000000")])
            try:
                async with opened(house, where):
                    return True
            except AssertionError as refused:
                assert "HTTP/1.1 429" in str(refused), refused
                return False

        async with opened(house, where) as (_, writer):
            if where.endswith("terminal"):
                writer.write(frame(2, b"kept=here\r"))
                await writer.drain()
            assert not await is_free()
            vanish(writer)
            await settled(is_free)
        if where.endswith("terminal"):
            async with opened(house, where) as (reader, writer):
                writer.write(frame(2, b"echo still $kept\r"))
                await asyncio.wait_for(reader.readuntil(b"still here"), 10)
