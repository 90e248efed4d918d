"""Nobody takes the connections of others: shares, places, and an end to waiting for who does not read."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.surfaces.conftest import ALICE, BOB, OWNER
from tests.surfaces.previews.conftest import UPGRADE, Street, Streets, answering, heard
from tests.surfaces.previews.test_websockets import echo, program


@pytest.mark.parametrize("bound", ["connections_per_sandbox", "connections_per_owner"])
async def test_a_tenant_that_took_its_share_leaves_others_theirs(open_street: Streets, bound: str) -> None:
    async with open_street(more_settings={"previews": {bound: 2}}) as street:
        call, go = street.house.call, asyncio.Event()

        async def waits(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            await reader.read()

        for port in (3001, 3002, 3003):
            street.serve(waits, port=port)
            await street.register(port=port)
        theirs = (await street.house.create(BOB))["id"]
        street.serve(answering([]), sandbox=theirs)
        await street.register(BOB, sandbox_id=theirs, public=True)
        two = [asyncio.create_task(call("GET", street.path(port=port))) for port in (3001, 3002)]
        async with asyncio.timeout(5):
            while street.open < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await call("GET", street.path(port=3003))).status_code == 503
        assert (await call("GET", f"/preview/{theirs}/3000/", None)).text == "hi"
        go.set()
        assert [(await one).text for one in two] == ["hi", "hi"]
        assert (await call("GET", street.path(port=3003))).text == "hi", "what is kept makes room"
        await street.house.app.showing.pool.close()
        assert street.house.app.showing.pool.open == 0


async def test_owners_together_leave_room_for_one_more(open_street: Streets) -> None:
    async with open_street(more_settings={"previews": {"connections_max": 8}}) as street:
        sent = 0

        async def waits(reader: StreamReader, _writer: StreamWriter) -> None:
            nonlocal sent
            await heard(reader)
            sent += 1
            await reader.read()

        tasks: list[asyncio.Task[Any]] = []
        try:
            for key, room in ((ALICE, 4), (BOB, 2), (OWNER, 1)):
                theirs = (await street.house.create(key))["id"]
                street.serve(waits, sandbox=theirs)
                await street.register(key, sandbox_id=theirs, public=True)
                path = f"/preview/{theirs}/3000/"
                for _ in range(room):
                    before = sent
                    tasks.append(asyncio.create_task(street.house.call("GET", path, None)))
                    async with asyncio.timeout(5):
                        while sent == before:  # noqa: ASYNC110
                            await asyncio.sleep(0.01)
                assert (await street.house.call("GET", path, None)).status_code == 503
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_address_has_so_many_sockets_without_a_credential(open_street: Streets) -> None:
    settings = {"previews": {"sockets_per_address": 1}}
    async with open_street(more_settings=settings) as street, program(street, echo):
        await street.register(public=True)
        far = {"x-forwarded-for": "192.0.2.1"}
        for _ in range(2):
            async with street.house.socket(street.path(), None, additional_headers=far):
                with pytest.raises(InvalidStatus) as refused:
                    async with street.house.socket(street.path(), None, additional_headers=far):
                        pass
                assert refused.value.response.status_code == 429
            await street.quiet()


async def test_who_does_not_read_an_answer_is_hung_up_on(open_street: Streets) -> None:
    async with open_street(more_settings={"previews": {"idle_s": 0.3}}) as street:

        async def endless(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

        street.serve(endless)
        await street.register(public=True)
        await deaf(street, f"GET {street.path()} HTTP/1.1\r\nhost: x\r\n\r\n")


async def test_who_does_not_read_messages_is_hung_up_on(open_street: Streets) -> None:
    async def shouts(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                await connection.send(b"x" * 60_000)

    async with open_street(more_settings={"previews": {"idle_s": 0.3}}) as street, program(street, shouts):
        await street.register(public=True)
        await deaf(street, f"GET {street.path()} HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n")


async def deaf(street: Street, request: str) -> None:
    """Asks, reads nothing, and waits until the program has no connection any more."""
    host, port = street.house.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request.encode())
        async with asyncio.timeout(5):
            while not street.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await street.quiet()
    finally:
        writer.transport.abort()
