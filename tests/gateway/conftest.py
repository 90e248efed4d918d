"""What the gateway's tests share: names and servers of a planted internet, all of it on this machine's loopback."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from atoll.domain.errors import NotFound

Handle = Callable[[StreamReader, StreamWriter], Awaitable[None]]


@dataclass
class Internet:
    """`names` have addresses; what listens at one is reached by `connect`, and every try is noted."""

    names: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    asked: list[str] = field(default_factory=list[str])
    reached: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    _places: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    _servers: list[asyncio.Server] = field(default_factory=list[asyncio.Server])

    async def resolve(self, name: str) -> list[IPv4Address]:
        self.asked.append(name)
        if name not in self.names:
            raise NotFound(name)
        return [IPv4Address(address) for address in self.names[name]]

    async def connect(self, address: IPv4Address, port: int) -> tuple[StreamReader, StreamWriter]:
        self.reached.append((str(address), port))
        place = self._places.get((str(address), port))
        if place is None:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", place)

    async def listen(self, address: str, port: int, handle: Handle) -> None:
        async def handled(reader: StreamReader, writer: StreamWriter) -> None:
            try:
                await handle(reader, writer)
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handled, "127.0.0.1", 0)
        self._servers.append(server)
        self._places[address, port] = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        for server in self._servers:
            server.close()


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(b"echo " + data)
        await writer.drain()


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    made = Internet()
    yield made
    await made.close()
