"""What hostile or vanished peers cannot do to the HTTP and WebSocket protocols (W05, W06, W08)."""

from __future__ import annotations

import asyncio
import os
import resource
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets import http11
from websockets.exceptions import ConnectionClosed

from atoll.surfaces import transport, websocket_transport

KEY = b"sk_" + b"a1" * 32
UPGRADE = (
    b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %b\r\n" % KEY
)
DRIPPED = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


@asynccontextmanager
async def raw(house: Any, head: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    try:
        yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def upgraded(house: Any, extra: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket whose frames the test makes itself, to a `cat`."""
    session = await house.create()
    head = b"GET /v1/sessions/%b/exec?cmd=cat HTTP/1.1\r\n%b%b\r\n" % (session["id"].encode(), UPGRADE, extra)
    async with raw(house, head) as (reader, writer):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        assert b"permessage-deflate" not in answer
        yield reader, writer


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    """A masked frame with a mask of zeros."""
    size = len(data)
    first = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        return first + bytes([0x80 | size]) + bytes(4) + data
    if size < 65_536:
        return first + b"\xfe" + struct.pack("!H", size) + bytes(4) + data
    return first + b"\xff" + struct.pack("!Q", size) + bytes(4) + data


async def close_code(reader: asyncio.StreamReader) -> int | None:
    """The code of the close frame that ends the connection."""
    data = await asyncio.wait_for(reader.read(), 10)
    at = data.rfind(b"\x88")
    return struct.unpack_from("!H", data, at + 2)[0] if at >= 0 else None


async def test_w05_a_message_beyond_the_limit_closes_with_1009(open_house: Any) -> None:
    async with open_house(server={"port": 0, "frame_bytes": 4096, "drain_s": 1}) as house:
        session = await house.create()
        async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=cat") as socket:
            await socket.send(b"\x01" + struct.pack("!I", 5000) + b"x" * 5000)
            with pytest.raises(ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code == 1009


async def test_w05_a_length_alone_is_refused_before_its_bytes_come(house: Any) -> None:
    async with upgraded(house) as (reader, writer):
        writer.write(b"\x82\xff" + struct.pack("!Q", 64 * 2**20) + bytes(4))
        assert await close_code(reader) == 1009


async def test_w05_fragments_together_count_as_one_message(house: Any) -> None:
    async with upgraded(house) as (reader, writer):
        writer.write(frame(2, b"x" * 60_000, fin=False))
        for _ in range(30):
            writer.write(frame(0, b"x" * 60_000, fin=False))
        assert await close_code(reader) == 1009


async def test_w05_empty_fragments_have_an_end(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_transport, "EMPTY_FRAGMENTS_MAX", 1000)
    async with upgraded(house) as (reader, writer):
        writer.write(frame(2, b"", fin=False) + frame(0, b"", fin=False) * 1200)
        assert await close_code(reader) == 1009


async def test_w05_no_compression_is_agreed_upon_so_no_bomb_goes_off(house: Any) -> None:
    async with upgraded(house, b"Sec-WebSocket-Extensions: permessage-deflate\r\n") as (reader, writer):
        writer.write(b"\xc2\x85" + bytes(4) + b"bombs")  # RSV1 without an agreement
        assert await close_code(reader) == 1002


async def test_w06_pings_whose_answers_nobody_reads_pile_up_nothing(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_transport, "IDLE_FRAMES_PER_S", 10**9)
    async with upgraded(house) as (_, writer):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pings = frame(9, b"p" * 100) * 1000
        for _ in range(60):
            writer.write(pings)
            try:
                await asyncio.wait_for(writer.drain(), 0.02)
            except TimeoutError:
                pass
        # Six million bytes of pings: of the answers only what sockets and one buffer hold was ever made.
        assert (await house.call("GET", "/health", None)).status_code == 200
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
        writer.transport.abort()


async def test_w06_a_flood_of_tiny_messages_is_taken_at_the_processs_speed(house: Any) -> None:
    session = await house.create()
    async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=cat", max_queue=None) as socket:
        message = b"\x01\0\0\0\1x"
        for _ in range(5000):
            await socket.send(message)
        await socket.send(b"\x06")
        assert (await house.call("GET", "/health", None)).status_code == 200
        size = sum([len(found) - 5 async for found in socket if isinstance(found, bytes) and found[0] == 2])
    assert size == 5000


async def test_w08_a_peer_that_vanished_is_noticed_before_the_second_ping(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.surfaces.serving.PING_INTERVAL_S", 0.3)
    monkeypatch.setattr("atoll.surfaces.serving.PING_TIMEOUT_S", 0.2)
    async with open_house() as house, upgraded(house) as (reader, _):
        started = asyncio.get_running_loop().time()
        assert await close_code(reader) == 1011  # this client answers no ping
        assert asyncio.get_running_loop().time() - started < 0.6 + 0.5


async def test_a_silent_process_keeps_its_client(open_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input that is not taken holds the client's pongs back: that is no reason to cut it off."""
    monkeypatch.setattr("atoll.surfaces.serving.PING_INTERVAL_S", 0.1)
    monkeypatch.setattr("atoll.surfaces.serving.PING_TIMEOUT_S", 0.1)
    async with open_house() as house:
        session = await house.create()
        path = f"/v1/sessions/{session['id']}/exec?cmd=sleep&cmd=600"
        socket = await house.socket(path, ping_interval=None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await socket.send(b"\x01\0\1\0\0" + b"x" * 65_536)
        assert socket.close_code is None
        socket.transport.abort()


async def test_a_head_without_end_is_refused(house: Any) -> None:
    async with raw(house, b"GET /health HTTP/1.1\r\nHost: x\r\n") as (reader, writer):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            for number in range(200):
                writer.write(b"X-%d: %b\r\n" % (number, b"y" * 1000))
                await writer.drain()
            await reader.readuntil(b"HTTP/1.1 200")
    assert (await house.call("GET", "/health", None)).status_code == 200


async def test_a_head_that_never_comes_is_not_waited_for(open_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEAD_S", 0.2)
    async with open_house() as house:
        async with raw(house) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        async with raw(house, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea") as (reader, _):
            answers = await asyncio.wait_for(reader.read(), 5)
            assert answers.startswith(b"HTTP/1.1 200") and answers.count(b"HTTP/1.1") == 1


async def test_a_request_that_takes_longer_than_its_head_is_left_alone(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "HEAD_S", 0.1)
    async with open_house() as house:
        session = await house.create()
        assert (await house.exec(session["id"], ["sleep", "0.4"]))["exitCode"] == 0


async def test_garbage_is_a_400_and_no_fault(house: Any) -> None:
    for garbage in (b"\x16\x03\x01" + os.urandom(200), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100):
        async with raw(house, garbage + b"\r\n\r\n") as (reader, _):
            assert (await asyncio.wait_for(reader.read(), 5))[:12] in (b"HTTP/1.1 400", b"")
    assert (await house.call("GET", "/health", None)).status_code == 200


async def refusal(house: Any, head: bytes) -> bytes:
    """The text of the 400 that answers a head and ends its connection."""
    async with raw(house, head) as (reader, _):
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1, answer
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("extra", [b"X-A: %b\r\n" % (b"a" * 50_000), b"X-A: a\r\n" * 5000])
async def test_an_upgrade_may_have_as_large_a_head_as_any_request(house: Any, extra: bytes) -> None:
    async with upgraded(house, extra) as (reader, writer):
        writer.write(frame(8, b"\x03\xe8"))
        assert await close_code(reader) == 1000


async def test_a_long_command_is_run_and_one_beyond_any_head_is_refused(house: Any) -> None:
    session = await house.create()
    async with house.socket(f"/v1/sessions/{session['id']}/exec?cmd=echo&cmd={'x' * 60_000}") as socket:
        size = sum([len(found) - 5 async for found in socket if isinstance(found, bytes) and found[0] == 2])
    assert size == 60_001
    head = b"GET /v1/sessions/%b/exec?cmd=%b HTTP/1.1\r\n" % (session["id"].encode(), b"x" * 65_536)
    assert await refusal(house, head + UPGRADE + b"\r\n") == b"The request's head is larger than 65536 bytes."


@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n"])
async def test_an_upgrade_with_a_body_is_refused_before_its_body_comes(house: Any, body: bytes) -> None:
    for path in (b"/v1/sessions/sess_0123456789ab/attach", b"/health"):
        assert b"has no body" in await refusal(house, b"GET %b HTTP/1.1\r\n%b%b" % (path, UPGRADE, body))


async def test_an_upgrade_that_websockets_does_not_take_is_refused_too(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"GET /v1/sessions/sess_0123456789ab/attach HTTP/1.1\r\n%bX-A: a\r\n\r\n" % UPGRADE
    for name, bound in (("MAX_NUM_HEADERS", 5), ("MAX_LINE_LENGTH", 20)):
        with monkeypatch.context() as patched:
            patched.setattr(http11, name, bound)
            await refusal(house, head)


async def test_an_upgrade_waits_for_the_answer_to_the_request_before_it(house: Any) -> None:
    session = await house.create()
    path = b"/v1/sessions/%b/exec" % session["id"].encode()
    key = b"Authorization: Bearer %b\r\n" % KEY
    body = b'{"command": ["sleep", "0.2"]}'
    first = b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    async with raw(house, first % (path, key, len(body), body)) as (reader, writer):
        writer.write(b"GET %b?cmd=cat HTTP/1.1\r\n%b\r\n" % (path, UPGRADE))
        answers = await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 101 Switching Protocols\r\n"), 10)
        assert answers.startswith(b"HTTP/1.1 200 ") and answers.count(b"HTTP/1.1 ") == 2


async def test_a_request_has_one_host(house: Any) -> None:
    for hosts in (b"", b"Host: x\r\nHost: x\r\n"):
        assert b"one Host" in await refusal(house, b"GET /health HTTP/1.1\r\n%b\r\n" % hosts)
    async with raw(house, b"GET /health HTTP/1.0\r\n\r\n") as (reader, _):
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", [b"GET /health/ready", b"POST /v1/sessions", b"GET /nowhere"])
async def test_a_body_that_drips_on_after_the_answer_is_not_read_for_ever(
    house: Any, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(transport, "REST_S", 0.3)
    async with raw(house, DRIPPED.replace(b"GET /health", path)) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(5):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)


async def test_the_rest_of_a_body_that_comes_in_time_leaves_the_connection_to_the_next_request(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "REST_S", 0.3)
    async with raw(house, DRIPPED) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 100_000)
        await asyncio.sleep(0.5)
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 404"), 5)


@pytest.mark.parametrize(
    ("first", "then"), [(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"), (DRIPPED, b"x" * 100_000)]
)
async def test_bytes_that_begin_no_request_keep_no_connection_open(
    open_house: Any, monkeypatch: pytest.MonkeyPatch, first: bytes, then: bytes
) -> None:
    monkeypatch.setattr(transport, "HEAD_S", 0.3)
    async with open_house() as house, raw(house, first) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(then)
        await asyncio.wait_for(reader.read(), 5)


class Written:
    """A transport that notes its writes."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_the_head_of_an_answer_leaves_with_its_body_and_waits_for_no_late_one() -> None:
    one, late, none = Written(), Written(), Written()
    answers = [transport.HeadWithBody(to, asyncio.get_running_loop()) for to in (one, late, none)]  # type: ignore[arg-type]
    for answer in answers:
        answer.write(b"head ")
    answers[0].write(b"body ")
    answers[0].write(b"more")
    answers[2].close()
    assert (one.writes, late.writes, none.writes, none.closed) == ([b"head body ", b"more"], [], [b"head "], True)
    await asyncio.sleep(0)
    answers[1].write(b"body")
    assert late.writes == [b"head ", b"body"]
    assert (one.writes, none.writes) == ([b"head body ", b"more"], [b"head "])
