"""What name servers say, and how much of it is listened to."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator

import pytest

from atoll.domain.errors import NotFound, Unavailable
from atoll.gateway.resolver import ADDRESSES_MAX, KEPT_S_MAX, NameServers

HEAD = struct.Struct("!2sH4H")
TRUNCATED, UNKNOWN = 0x8380, 0x8183


class Server(asyncio.DatagramProtocol):
    """Says of every name, over UDP, that the answer is too long or that there is none; over TCP it has many addresses
    and then, under a name of many labels, many more names."""

    def __init__(self) -> None:
        self.flags, self.addresses, self.names = TRUNCATED, 1, 0
        self.asked = 0
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        server = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._tcp = server
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", self.port))

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        self._udp.sendto(HEAD.pack(data[:2], self.flags, 1, 0, 0, 0) + data[12:], addr)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        question = await reader.readexactly(size)
        made = HEAD.pack(question[:2], 0x8180, 1, self.addresses, self.names, 0) + question[12:]
        for number in range(self.addresses):
            made += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + (0x5DB80000 + number).to_bytes(4, "big")
        long = len(made)
        if self.names:
            made += b"\1a" * 100 + b"\xc0\x0c\0\2\0\1\0\0\0\0\0\2\xc0\x0c"
            pointer = (0xC000 | long).to_bytes(2, "big")
            for number in range(self.names - 1):
                made += pointer + b"\0\2\0\1\0\0\0\0\0\4\1" + bytes([97 + number % 26]) + pointer
        writer.write(len(made).to_bytes(2, "big") + made)
        await writer.drain()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.start()
    yield made
    made.close()


async def test_an_answer_that_fits_no_datagram_is_read(server: Server) -> None:
    server.addresses = 100
    found = await NameServers(("127.0.0.1",), server.port).resolve("good.example")
    assert len(found) == ADDRESSES_MAX and str(found[0]) == "93.184.0.0"


async def test_what_a_zone_says_holds_up_nobody(server: Server) -> None:
    server.names = 200
    begun = time.monotonic()
    assert await NameServers(("127.0.0.1",), server.port).resolve("good.example")
    server.addresses = 3000
    with pytest.raises(Unavailable):
        await NameServers(("127.0.0.1",), server.port).resolve("good.example")
    assert time.monotonic() - begun < 0.5


async def test_that_a_name_is_unknown_is_not_known_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name servers of containers do not say for how long."""
    server.flags = UNKNOWN
    names = NameServers(("127.0.0.1",), server.port)
    for _ in range(2):
        with pytest.raises(NotFound):
            await names.resolve("late.example")
    assert server.asked == 1
    server.flags = TRUNCATED
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + KEPT_S_MAX + 1)
    assert await names.resolve("late.example")
