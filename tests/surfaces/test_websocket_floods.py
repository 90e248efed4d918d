"""A flood of WebSocket frames on one connection leaves the event loop to the others (W06)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.surfaces import websocket_transport
from tests.surfaces.bare_server import serving
from tests.surfaces.test_rfc6455 import BINARY, CLOSE, PING, PONG, TEXT, Peer, connected, echo

MASKED_NOTHING = b"\x80" + bytes(4)
FLOOD = 10_000  # frames, which one read may hold


class Turns:
    """Counts the turns of the event loop, and what happens in each."""

    def __init__(self) -> None:
        self.now = 0
        self.seen: Counter[int] = Counter()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.now += 1
        self._handle = self._loop.call_soon(self._tick)

    def count(self, things: int) -> None:
        self.seen[self.now] += things

    def end(self) -> None:
        self._handle.cancel()


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    found = Turns()
    yield found
    found.end()


@pytest.mark.parametrize("opcode", [PING, PONG, BINARY])
async def test_w06_a_turn_of_the_loop_takes_some_hundred_frames_of_a_connection(
    opcode: int, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = websocket_transport.WebSocket.handle_events

    def counted(self: Any) -> None:
        turns.count(len(self.conn.events))
        take(self)

    monkeypatch.setattr(websocket_transport.WebSocket, "handle_events", counted)
    monkeypatch.setattr(websocket_transport, "IDLE_FRAMES_PER_S", 10**9)
    async with serving(echo) as port, connected(port) as peer:
        peer.writer.write((bytes([0x80 | opcode]) + MASKED_NOTHING) * FLOOD)
        peer.send(TEXT, b"the last")
        await until_text(peer)
    assert sum(turns.seen.values()) > FLOOD
    assert max(turns.seen.values()) < 3 * websocket_transport.FRAMES_PER_TURN


async def until_text(peer: Peer) -> None:
    async with asyncio.timeout(30):
        end = b""
        while not end.endswith(b"\x81\x08the last"):
            data = await peer.reader.read(65_536)
            assert data, "the connection ended"
            end = (end + data)[-10:]


async def test_w06_a_handler_that_waits_for_nothing_leaves_turns_to_others(turns: Turns) -> None:
    async def sink(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            turns.count(1)
            if message.get("text"):
                await send({"type": "websocket.send", "text": message["text"]})

    async with serving(sink) as port, connected(port) as peer:
        peer.writer.write(b"\x82\x81" + bytes(4) + b"x")
        peer.writer.write((b"\x82\x81" + bytes(4) + b"x") * 5_000)
        peer.send(TEXT, b"the last")
        await until_text(peer)
    assert sum(turns.seen.values()) == 5_002
    assert max(turns.seen.values()) <= 2 * websocket_transport.MESSAGES_PER_TURN


@pytest.mark.parametrize("opcode", [PING, PONG, TEXT, BINARY])
async def test_w06_frames_that_carry_nothing_have_a_rate(opcode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_transport, "IDLE_FRAMES_PER_S", 100)
    async with serving(echo) as port, connected(port) as peer:
        for _ in range(50):
            peer.send(opcode)
        peer.send(TEXT, b"the last")
        await until_text(peer)
        peer.writer.write((bytes([0x80 | opcode]) + MASKED_NOTHING) * FLOOD)
        while (found := await peer.receive())[0] != CLOSE:
            pass
        assert found == (CLOSE, b"\x03\xf0too many frames without data")


async def test_frames_before_the_handshake_is_answered_end_the_connection() -> None:
    gone = asyncio.Event()

    async def late(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"
        gone.set()
        await send({"type": "websocket.close"})

    async with serving(late) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await asyncio.sleep(0.1)
        writer.write((bytes([0x80 | PONG]) + MASKED_NOTHING) * FLOOD)
        async with asyncio.timeout(10):
            await gone.wait()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        writer.close()


async def test_a_large_message_that_comes_with_small_ones_is_whole() -> None:
    async with serving(echo) as port, connected(port) as peer:
        large = bytes(range(256)) * 3_000
        for _ in range(3):
            peer.send(TEXT, b"small")
            peer.send(BINARY, large)
        for _ in range(3):
            assert await peer.receive() == (TEXT, b"small")
            assert await peer.receive() == (BINARY, large)
