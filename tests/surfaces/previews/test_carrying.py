"""What goes through a preview: requests and answers of every form, streamed both ways, and nothing that is ours."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from atoll.gateway.previews.failures import Broken
from atoll.gateway.previews.upstream import CHUNK_BYTES, HEAD_BYTES_MAX, HELD_BYTES, Upstream
from atoll.gateway.previews.wire import PIECE_BYTES
from tests.surfaces.conftest import ALICE
from tests.surfaces.previews.conftest import Heard, Streets, answering, heard


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_goes_to_the_port_with_path_and_query_as_they_came(
    open_street: Streets, method: str
) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found, b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\nx-own: 1\r\n\r\n"))
        await street.register()
        answer = await street.house.call(method, street.path("/a%2Fb//c%20d?x=1&y=%ff"))
        assert (answer.status_code, answer.headers["x-own"]) == (418, "1")
        assert found[0].line == f"{method} /a%2Fb//c%20d?x=1&y=%ff HTTP/1.1"


async def test_our_credentials_go_no_further_and_the_hops_are_ours(open_street: Streets) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found))
        await street.register()
        headers = {
            "x-forwarded-for": "9.9.9.9",
            "connection": "keep-alive, x-secret",
            "x-secret": "1",
            "te": "trailers",
            "cookie": "a=b; atoll_preview=x; __Host-atoll_session=y; c=d",
            "x-api-key": ALICE,
        }
        for _ in range(2):  # the second with a ticket
            await street.house.call("GET", street.path(), headers=headers)
        for one in found:
            assert one.headers["cookie"] == "a=b; c=d"
            assert one.headers["host"] == "127.0.0.1:3000"
            assert one.headers["x-forwarded-for"] == "127.0.0.1"
            assert one.headers["x-forwarded-prefix"] == f"/preview/{street.sandbox}/3000"
            assert not {"authorization", "x-api-key", "x-secret", "te", "connection"} & one.headers.keys()
        assert street.connections == 1, "a connection is kept for the next request"


async def test_what_comes_back_has_no_hops_and_cookies_of_this_preview_only(open_street: Streets) -> None:
    async with open_street() as street:
        answer = (
            b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: x-hop\r\nx-hop: 1\r\nlocation: /next\r\n"
            b"set-cookie: a=1; Domain=example.com; Path=/app; HttpOnly\r\nset-cookie: b=2\r\n"
            b"set-cookie: atoll_preview=mine; Path=/\r\nservice-worker-allowed: /\r\n\r\n"
        )
        street.serve(answering([], answer))
        await street.register(public=True)
        prefix = f"/preview/{street.sandbox}/3000"
        for _ in range(2):
            came = await street.house.call("GET", street.path(), None)
            assert came.status_code == 302
            assert came.headers["location"] == prefix + "/next"
            cookies = came.headers.get_list("set-cookie")
            assert cookies == [f"a=1; HttpOnly; Path={prefix}/app", f"b=2; Path={prefix}/"]
            assert not {"x-hop", "service-worker-allowed"} & came.headers.keys()


async def test_a_large_body_streams_both_ways(open_street: Streets) -> None:
    async with open_street() as street:

        async def program(reader: StreamReader, writer: StreamWriter) -> None:
            got = await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for at in range(0, len(got.body), 50_000):
                piece = got.body[at : at + 50_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\nx-trailer: 1\r\n\r\n")

        street.serve(program)
        await street.register()
        body = bytes(range(256)) * 12_000

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(body), 100_000):
                yield body[at : at + 100_000]

        assert (await street.house.call("POST", street.path(), content=body)).content == body
        assert (await street.house.call("POST", street.path(), content=pieces())).content == body


async def test_events_come_as_they_are_sent_and_the_program_hears_that_the_client_left(open_street: Streets) -> None:
    async with open_street() as street:
        more = asyncio.Event()

        async def program(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            await more.wait()
            writer.write(b"data: 2\n\n")
            await reader.read()

        street.serve(program)
        await street.register()
        async with street.house.http.stream(
            "GET", street.house.url + street.path(), headers=street.house.headers(ALICE)
        ) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "data: 1"
            more.set()
            assert [await anext(lines), await anext(lines)] == ["", "data: 2"]
        await street.quiet()


async def test_a_connection_that_was_closed_meanwhile_is_no_failure(open_street: Streets) -> None:
    async with open_street() as street:

        async def program(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            await heard(reader)  # and hangs up on the second

        street.serve(program)
        await street.register()
        for _ in range(3):
            assert (await street.house.call("POST", street.path(), content=b"x")).text == "hi"
        assert street.connections == 3


async def test_what_must_not_happen_twice_is_sent_once_though_a_kept_connection_closes(open_street: Streets) -> None:
    found: list[Heard] = []

    async def once(reader: StreamReader, writer: StreamWriter) -> None:
        found.append(await heard(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        found.append(await heard(reader))  # and hangs up

    async with open_street() as street:
        street.serve(once)
        await street.register()
        for method in ("GET", "POST", "GET"):
            assert (await street.house.call(method, street.path())).status_code == 200
        assert [one.line.split()[0] for one in found].count("POST") == 1
        assert len(found) == 4, "what may be repeated is, over a connection of its own"


async def test_what_follows_an_answer_is_nobodys(open_street: Streets) -> None:
    """A program may send a second answer, for whoever comes next on its connection."""
    async with open_street() as street:
        smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        street.serve(answering([], smuggled))
        await street.register()
        for _ in range(3):
            assert (await street.house.call("GET", street.path())).text == "hi"
        assert street.connections == 3


BAD_ANSWERS = {
    "no_http": b"220 smtp ready\r\n",
    "two_lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "length_and_chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "status": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    "head": b"HTTP/1.1 200 OK\r\n" + b"x-a: %s\r\n" % (b"a" * 1000) * 300 + b"\r\n",
    "fold": b"HTTP/1.1 200 OK\r\nx-a: b\r\n c: d\r\ncontent-length: 0\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_answer_that_is_no_http_is_502(open_street: Streets, name: str) -> None:
    async with open_street() as street:

        async def program(reader: StreamReader, writer: StreamWriter) -> None:
            await heard(reader)
            writer.write(BAD_ANSWERS[name])
            await writer.drain()

        street.serve(program)
        await street.register()
        answer = await street.house.call("GET", street.path())
        assert answer.status_code == 502
        assert list(answer.json()) == ["detail"]
        await street.quiet()


SMUGGLED = b"GET /smuggled HTTP/1.1\r\n\r\n"
REQUESTS = {
    "length_and_chunks": b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two_lengths": b"content-length: 0\r\ncontent-length: 30\r\n\r\n" + SMUGGLED,
    "bad_chunk": b"transfer-encoding: chunked\r\n\r\nzz\r\n" + SMUGGLED,
    "long_chunk": b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n" + SMUGGLED,
    "space_before_colon": b"content-length : 0\r\n\r\n" + SMUGGLED,
    "fold": b"x-a: b\r\n content-length: 30\r\n\r\n" + SMUGGLED,
    "odd_coding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two_codings": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "bare_newlines": b"x-a: b\n\n" + SMUGGLED,
    "nul": b"x-a: b\0c\r\n\r\n",
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_no_second_request_is_smuggled_through(open_street: Streets, name: str) -> None:
    async with open_street() as street:
        found: list[Heard] = []
        street.serve(answering(found))
        await street.register(public=True)
        head = f"POST {street.path('/real')} HTTP/1.1\r\nhost: x\r\n".encode()
        came = await street.raw(head + REQUESTS[name])
        assert not came or came.startswith(b"HTTP/1.1 400 ")
        assert all("smuggled" not in one.line for one in found)


INNER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER),
        b"HTTP/1.1 200 OK\r\nconnection: content-length\r\ncontent-length: %d\r\n\r\n%b" % (len(INNER), INNER),
    ],
    ids=["after an interim one", "with a length that is named"],
)
async def test_no_answer_goes_on_without_its_length(open_street: Streets, answer: bytes) -> None:
    async with open_street() as street:
        street.serve(answering([], answer))
        await street.register(public=True)
        for _ in range(2):
            said = await street.raw(f"GET {street.path()} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head, _, body = said.partition(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head.lower()
            assert body.startswith(b"%x\r\n%b" % (len(INNER), INNER))


async def test_requests_sent_together_are_all_answered(open_street: Streets) -> None:
    async with open_street() as street:
        street.serve(answering([]))
        await street.register(public=True)
        one = f"GET {street.path()} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        other = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
        await street.raw(one)
        for many in (one + other, one + one + other, other + one + other):
            said = await street.raw(many)
            assert (said.count(b" 200 OK"), said.count(b" 500 ")) == (many.count(b"GET "), 0)


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[Upstream, StreamWriter]]:
    """A connection on which a request was sent, and the program's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    _, writer = await asyncio.open_connection(sock=theirs)
    upstream = Upstream(ours, first_byte_s=10, idle_s=10)
    upstream.begin("GET")
    try:
        yield upstream, writer
    finally:
        upstream.close()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_tiny_chunks_go_on_together_leave_turns_to_others_and_are_held_within_bounds() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def floods(writer: StreamWriter) -> None:
        writer.write(CHUNKED)
        for _ in range(20):
            writer.write(b"1\r\nx\r\n" * 10_000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with asked() as (upstream, writer):
        beside = [asyncio.create_task(others()), asyncio.create_task(floods(writer))]
        await upstream.head()
        for _ in range(1_000):  # the client takes nothing for a while
            await asyncio.sleep(0)
        assert len(upstream._pieces) <= HELD_BYTES / CHUNK_BYTES + PIECE_BYTES / 6
        size, last = 0, -1
        while (piece := await upstream.piece()) is not None:
            assert turns > last, "the one before it was all that was there"
            size, last = size + len(piece), turns
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    assert size == 200_000


@pytest.mark.parametrize(
    "rest",
    [b"0\r\nx-t: " + b"a" * 1_000_000, b"0\r\n" + b"x-t: a\r\n" * 200_000, b"1;x=" + b"a" * 1_000_000],
    ids=["a trailer", "trailers", "an extension"],
)
async def test_what_is_no_body_of_an_answer_is_bounded_behind_it_too(
    monkeypatch: pytest.MonkeyPatch, rest: bytes
) -> None:
    came: list[int] = []
    take = Upstream._take

    def counted(self: Any, data: bytes) -> None:
        came.append(len(data))
        take(self, data)

    monkeypatch.setattr(Upstream, "_take", counted)
    async with asked() as (upstream, writer), asyncio.timeout(10):
        writer.write(CHUNKED + b"3\r\nabc\r\n")
        assert await upstream.piece() == b"abc"
        writer.write(rest)
        with pytest.raises(Broken, match="too large"):
            await upstream.piece()
    assert sum(came) < HEAD_BYTES_MAX + 3 * PIECE_BYTES


async def test_an_answer_of_many_chunks_with_extensions_and_trailers_is_taken_whole() -> None:
    async with asked() as (upstream, writer), asyncio.timeout(10):
        feeding = asyncio.create_task(
            _fed(writer, [CHUNKED, *[b"a;x=%b\r\n%b\r\n" % (b"y" * 990, b"0123456789")] * 500])
        )
        body = b""
        while (piece := await upstream.piece()) is not None:
            body += piece
        await feeding
    assert body == b"0123456789" * 500


async def _fed(writer: StreamWriter, pieces: list[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    writer.write(b"0\r\nx-t: 1\r\n\r\n")
