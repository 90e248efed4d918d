"""RFC 6455 frame by frame (W04): the categories of the Autobahn suite that a server without extensions has."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.surfaces.bare_server import serving

TEXT, BINARY, CLOSE, PING, PONG, CONTINUE = 1, 2, 8, 9, 10, 0
MASK = b"\x37\xfa\x21\x3d"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(echo) as port:
        yield port


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> None:
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if masked else 0
        if len(data) < 126:
            head += bytes([bit | len(data)])
        elif len(data) < 65_536:
            head += bytes([bit | 126]) + struct.pack("!H", len(data))
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", len(data))
        if masked:
            data = MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(data))
        self.writer.write(head + data)

    async def receive(self) -> tuple[int, bytes]:
        async with asyncio.timeout(5):
            first, second = await self.reader.readexactly(2)
            assert first & 0x80 and not first & 0x70 and not second & 0x80, "unfragmented, no RSV, no mask"
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def closed_with(self) -> int | None:
        """The code of the close frame that comes next, after which the connection ends."""
        opcode, data = await self.receive()
        assert opcode == CLOSE, (opcode, data)
        async with asyncio.timeout(5):
            assert await self.reader.read() == b""
        return struct.unpack_from("!H", data)[0] if data else None


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b"101 Switching" in answer and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65_535, 65_536, 2**20])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_w04_messages_of_every_length_form_come_back(port: int, opcode: int, size: int) -> None:
    async with connected(port) as peer:
        data = b"*" * size if opcode == TEXT else (bytes(range(256)) * (size // 256 + 1))[:size]
        peer.send(opcode, data)
        assert await peer.receive() == (opcode, data)


@pytest.mark.parametrize("data", [b"", b"hello", b"\0\xff\xfe", b"x" * 125])
async def test_w04_a_ping_is_answered_with_its_own_data(port: int, data: bytes) -> None:
    async with connected(port) as peer:
        peer.send(PING, data)
        assert await peer.receive() == (PONG, data)


async def test_w04_pongs_that_nobody_asked_for_are_nothing(port: int) -> None:
    async with connected(port) as peer:
        peer.send(PONG, b"x")
        peer.send(PING, b"y")
        assert await peer.receive() == (PONG, b"y")


async def test_w04_fragments_join_and_control_frames_may_stand_between_them(port: int) -> None:
    async with connected(port) as peer:
        peer.send(TEXT, "é".encode()[:1], fin=False)
        peer.send(PING, b"between")
        assert await peer.receive() == (PONG, b"between")
        peer.send(CONTINUE, b"", fin=False)
        peer.send(CONTINUE, "é".encode()[1:] + b"!")
        assert await peer.receive() == (TEXT, "é!".encode())


VIOLATIONS = {
    "a ping of 126 bytes": [(PING, b"x" * 126, {})],
    "a fragmented ping": [(PING, b"x", {"fin": False})],
    "a fragmented close": [(CLOSE, b"", {"fin": False})],
    "a close of 126 bytes": [(CLOSE, struct.pack("!H", 1000) + b"x" * 124, {})],
    "a close of one byte": [(CLOSE, b"\x03", {})],
    "a continuation of nothing": [(CONTINUE, b"x", {})],
    "a message within a message": [(TEXT, b"a", {"fin": False}), (TEXT, b"b", {})],
    "no mask": [(TEXT, b"x", {"masked": False})],
    **{f"RSV {rsv}": [(TEXT, b"x", {"rsv": rsv})] for rsv in (1, 2, 4, 7)},
    **{f"opcode {opcode}": [(opcode, b"", {})] for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"close code {code}": [(CLOSE, struct.pack("!H", code), {})]
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("what", VIOLATIONS)
async def test_w04_what_the_protocol_forbids_fails_the_connection_with_1002(port: int, what: str) -> None:
    async with connected(port) as peer:
        for opcode, data, more in VIOLATIONS[what]:
            peer.send(opcode, data, **more)
        assert await peer.closed_with() == 1002


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"ok\xce\xba\xe1\xbd\xb9\xcf\xff"]
)
async def test_w04_text_that_is_no_utf8_fails_with_1007(port: int, bad: bytes) -> None:
    async with connected(port) as peer:
        peer.send(TEXT, bad[:1], fin=False)
        peer.send(CONTINUE, bad[1:])
        assert await peer.closed_with() == 1007


async def test_w04_a_close_reason_that_is_no_utf8_fails(port: int) -> None:
    async with connected(port) as peer:
        peer.send(CLOSE, struct.pack("!H", 1000) + b"\xff\xfe")
        assert await peer.closed_with() in (1002, 1007)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
async def test_w04_a_good_close_is_answered_with_its_code(port: int, code: int) -> None:
    async with connected(port) as peer:
        peer.send(CLOSE, struct.pack("!H", code) + b"because")
        assert await peer.closed_with() == code


async def test_w04_a_close_without_a_code_is_answered_and_ends_all(port: int) -> None:
    async with connected(port) as peer:
        peer.send(CLOSE)
        peer.send(PING, b"too late")
        assert await peer.closed_with() in (None, 1000)


async def test_w04_frames_may_come_byte_by_byte(port: int) -> None:
    async with connected(port) as peer:
        for byte in b"\x81\x85" + MASK + bytes(letter ^ MASK[at % 4] for at, letter in enumerate(b"Hello")):
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0.001)
        assert await peer.receive() == (TEXT, b"Hello")


@pytest.mark.parametrize(
    "head",
    [
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
    ],
)
async def test_w04_a_bad_handshake_is_an_http_error(port: int, head: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + head + b"\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 426"))
