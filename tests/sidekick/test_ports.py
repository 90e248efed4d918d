"""Ports: bytes both ways, half-closes kept, refusals in words, and nothing left when either side goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from atoll.domain.errors import InvalidInput, Unavailable
from tests.sidekick.running import RunningSidekick, until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(call: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    server = await asyncio.start_server(call, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"over")
    writer.close()


async def test_bytes_pass_both_ways_and_an_end_is_passed_on(sidekick: RunningSidekick) -> None:
    async with serving(echo) as port:
        reader, writer = await sidekick.client.dial(port)
        writer.write(b"x" * 3_000_000)
        writer.write_eof()
        async with asyncio.timeout(10):
            assert await reader.read() == b"x" * 3_000_000 + b"over"
        writer.close()
        await writer.wait_closed()


async def test_a_server_on_the_other_loopback_is_found(sidekick: RunningSidekick) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with serving(echo, "::1") as port:
        reader, writer = await sidekick.client.dial(port)
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b"over"
        writer.close()


async def test_a_port_that_nobody_listens_on_is_unavailable(sidekick: RunningSidekick) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable):
            await sidekick.client.dial(unused.getsockname()[1])


@pytest.mark.parametrize("port", [0, -1, 65_536, 10**9])
async def test_what_is_no_port_is_refused(sidekick: RunningSidekick, port: int) -> None:
    with pytest.raises(InvalidInput):
        await sidekick.client.dial(port)


async def test_a_side_that_does_not_read_holds_the_other_back_and_no_memory(sidekick: RunningSidekick) -> None:
    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)
        writer.close()

    async with serving(deaf) as port:
        _, writer = await sidekick.client.dial(port)
        before = sidekick.memory_bytes()

        async def pour() -> None:
            for _ in range(200):
                writer.write(bytes(2**20))
                await writer.drain()

        pouring = asyncio.create_task(pour())
        await asyncio.sleep(0.5)
        assert not pouring.done()
        assert sidekick.memory_bytes() - before < 8 * 2**20
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        writer.transport.abort()


async def test_pipes_whose_clients_vanish_are_closed(sidekick: RunningSidekick) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(wait) as port:
        before = sidekick.descriptors()
        for _ in range(50):
            _, writer = await sidekick.client.dial(port)
            writer.transport.abort()
        await asyncio.to_thread(until, lambda: sidekick.descriptors() <= before)
