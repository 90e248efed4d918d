"""Floods of one connection: heads and trailers without end, requests without waiting, chunks of a byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atoll.surfaces import http_turns, transport
from tests.surfaces.bare_server import serving
from tests.surfaces.test_websocket_floods import Turns, turns

__all__ = ["turns"]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
END_LESS = b"a" * 16_384


class App:
    """Reads a whole request, and answers how many bytes its body had, once `may` is set."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.begun = 0
        self.scopes: list[Any] = []
        self.turns = turns

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        self.scopes.append(scope)
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message["body"])
            more = message["more_body"]
        await self.may.wait()
        body = b"%d!" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


async def until(what: Any) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", END_LESS),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", END_LESS),
        (b"GET /", END_LESS),
        (b"", b"\r\n" * 8_192),
        (CHUNKED + b"2\r\n{}\r\n0\r\nX-A: ", END_LESS),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-A: a\r\n" * 2_048),
        (CHUNKED + b"2;a=", END_LESS),
    ],
    ids=["a value", "a name", "a path", "nothing", "a trailer", "trailers", "an extension"],
)
async def test_what_does_not_end_is_refused_after_64_kib(
    begins: bytes, goes_on: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing beyond them reaches the parser, which keeps what has not ended."""
    parsed = 0
    take = http_turns.HttpToolsProtocol.data_received

    def counted(self: Any, data: bytes) -> None:
        nonlocal parsed
        parsed += len(data)
        take(self, data)

    monkeypatch.setattr(http_turns.HttpToolsProtocol, "data_received", counted)
    async with serving(App()) as port, connected(port) as (reader, writer):
        writer.write(begins)
        answer = b""
        with_error = False
        for _ in range(20):
            writer.write(goes_on)
            await asyncio.sleep(0)
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        except ConnectionError:  # closed with unread bytes
            with_error = True
    assert with_error or answer.startswith(b"HTTP/1.1 400 ")
    assert parsed <= http_turns.HEAD_BYTES_MAX + http_turns.CHUNKED_PIECE_BYTES + len(begins)


async def test_trailers_are_no_headers_of_their_request_nor_of_the_next() -> None:
    app = App()
    trailers = b"Authorization: Bearer x\r\nX-Forwarded-For: 127.0.0.1\r\nExpect: 100-continue\r\n\r\n"
    async with serving(app) as port, connected(port) as (reader, writer):
        for pieces in ([CHUNKED + b"2\r\n{}\r\n0\r\n" + trailers + GET], [CHUNKED, b"2\r\n{}\r\n0\r\n", trailers, GET]):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.02)
            for body in (b"2!", b"0!"):
                assert (await asyncio.wait_for(reader.readuntil(b"!"), 5)).endswith(b"\r\n\r\n" + body)
    names = [[name for name, _ in scope["headers"]] for scope in app.scopes]
    assert names == [[b"host", b"transfer-encoding"], [b"host"]] * 2


async def test_trailers_that_never_end_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEAD_S", 0.2)
    async with serving(App()) as port, connected(port) as (reader, writer):
        writer.write(CHUNKED + b"2\r\n{}\r\n0\r\nX-A: ")
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_body_that_takes_longer_than_trailers_may_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HEAD_S", 0.3)
    async with serving(App()) as port, connected(port) as (reader, writer):
        writer.write(CHUNKED)
        for _ in range(5):
            writer.write(b"2\r\n")
            await asyncio.sleep(0.02)
            writer.write(b"{}\r\n")
            await asyncio.sleep(0.12)
        writer.write(b"0\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"!"), 10)).endswith(b"\r\n\r\n10!")


async def test_a_request_is_parsed_when_the_one_before_it_is_answered() -> None:
    app = App()
    app.may.clear()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(GET * 500)
        await until(lambda: app.begun)
        writer.write(GET * 500)
        for _ in range(50):
            await asyncio.sleep(0)
        assert app.begun == 1
        app.may.set()
        seen = b""
        while seen.count(b"\r\n\r\n0!") < 1000:
            seen += await asyncio.wait_for(reader.read(65_536), 10)
    assert app.begun == 1000 and len(seen) == seen.find(b"HTTP", 1) * 1000


@pytest.mark.parametrize("split", range(1, len(GET)))
async def test_requests_are_told_apart_wherever_a_read_ends(split: int) -> None:
    app = App()
    both = CHUNKED + b"2\r\n\r\n\r\n0\r\nX-A: a\r\n\r\n" + GET
    app.may.clear()
    async with serving(app) as port, connected(port) as (reader, writer):
        for cut in (both[:-split], both[-split:] + GET):
            writer.write(cut)
            await asyncio.sleep(0.01)
        assert app.begun == 1
        app.may.set()
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n2!"), 5)).count(b"HTTP/1.1") == 1
        for _ in range(2):
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n0!"), 5)).count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("answered", [False, True])
async def test_a_turn_of_the_loop_takes_some_hundred_chunks_of_a_connection(
    answered: bool, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = transport.Http.on_body

    def counted(self: Any, body: bytes) -> None:
        turns.count(1)
        take(self, body)

    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(transport.Http, "on_body", counted)
    chunks = 40_000
    async with serving(refuse if answered else App()) as port, connected(port) as (reader, writer):
        writer.write(CHUNKED + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n" + GET)
        end = b"HTTP/1.1 401 " if answered else b"40000!"
        await asyncio.wait_for(reader.readuntil(end), 20)
        await asyncio.wait_for(reader.readuntil(b"HTTP/1.1"), 20)  # to the next request
    assert sum(turns.seen.values()) == chunks
    most = http_turns.CHUNKED_PIECE_BYTES // 6 + http_turns.STEPS_PER_TURN
    assert max(turns.seen.values()) <= most + 1


async def test_what_waits_for_an_answer_is_bounded_and_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    hold = http_turns.HttpInTurns.data_received

    def noted(self: Any, data: bytes) -> None:
        hold(self, data)
        held.append(len(self._unparsed))

    monkeypatch.setattr(http_turns.HttpInTurns, "data_received", noted)
    app = App()
    app.may.clear()
    async with serving(app) as port, connected(port) as (_, writer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    writer.write(GET * 2_000)
                    await writer.drain()
        assert app.begun == 1
        app.may.set()
    assert max(held) <= http_turns.HEAD_BYTES_MAX + 256 * 1024


async def test_a_client_that_hangs_up_while_its_requests_wait_is_noticed() -> None:
    app = App()
    gone = asyncio.Event()

    async def watch(_scope: Any, receive: Any, _send: Any) -> None:
        app.begun += 1
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with serving(watch) as port:
        async with connected(port) as (_, writer):
            writer.write(GET * 3)
            await until(lambda: app.begun)
        await asyncio.wait_for(gone.wait(), 10)
    assert app.begun == 1


async def test_an_answer_that_nobody_reads_is_given_up_and_one_that_is_read_slowly_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "UNREAD_S", 0.3)
    ended: list[int] = []

    async def large(_scope: Any, _receive: Any, send: Any) -> None:
        sent = 0
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < 2**23:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent += 65_536
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        ended.append(sent)

    async with serving(large) as port:
        with socket.socket() as deaf, socket.socket() as slow:
            for one in (deaf, slow):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
                one.setblocking(False)
                await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
                await asyncio.get_running_loop().sock_sendall(one, GET)
            left, read = 2**23, b"x"
            while left > 0 and read:
                read = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(slow, 131_072), 10)
                left -= len(read)
                await asyncio.sleep(0.02)
            assert left <= 0
            await until(lambda: len(ended) == 2)  # of the deaf one, what is sent after the end is dropped
            got = 0
            while read := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(deaf, 2**20), 10):
                got += len(read)
            assert got < 2**23


async def test_a_stream_that_says_nothing_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "UNREAD_S", 0.05)

    async def late(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 500_000, "more_body": True})
        await asyncio.sleep(0.4)
        await send({"type": "http.response.body", "body": b"the end", "more_body": False})

    async with serving(late) as port, connected(port) as (reader, writer):
        writer.write(GET.replace(b"Host", b"Connection: close\r\nHost"))
        assert b"the end" in await asyncio.wait_for(reader.read(), 10)
