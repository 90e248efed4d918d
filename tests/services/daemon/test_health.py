"""Health: what a server answers, and what is no answer."""

from __future__ import annotations

import asyncio
import socket
import time
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

import pytest

from atoll.services.daemon.health import HEAD_BYTES_MAX, is_well, status_of


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", 503),
        (b"HTTP/1.0 302 Found\r\nlocation: http://elsewhere/\r\n\r\n", 302),
        (b"no HTTP at all\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, None),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + b"HTTP/1.1 200 OK\r\n\r\n", None),
        ((b"HTTP/1.1 102 x\r\nx: " + b"y" * 2_000 + b"\r\n\r\n") * 9 + b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"", None),
        (None, None),  # it takes the connection and says nothing
    ],
    ids=[
        "no content",
        "after an interim one",
        "redirect",
        "nonsense",
        "endless head",
        "interim ones",
        "long ones",
        "hangs up",
        "hangs",
    ],
)
async def test_the_status_is_what_it_says_in_time(answer: bytes | None, status: int | None) -> None:
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            with suppress(ConnectionError):
                await reader.read()
        else:
            with suppress(ConnectionError):
                writer.write(answer)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = await status_of(lambda: asyncio.open_connection("127.0.0.1", port), "/health?x=1", 0.5)
    async with asyncio.timeout(5):
        await over.wait()
    server.close()
    await server.wait_closed()
    assert found == status and asked[0].startswith(b"GET /health?x=1 HTTP/1.1\r\n")


async def test_time_in_which_the_loop_stood_still_is_not_the_servers() -> None:
    reader = StreamReader()
    _, writer = await asyncio.open_connection(sock=(pair := socket.socketpair())[0])

    async def connect() -> tuple[StreamReader, StreamWriter]:
        for _ in range(4):
            time.sleep(0.2)  # noqa: ASYNC251 - somebody else's work, longer than the check may take
            await asyncio.sleep(0)
        reader.feed_data(b"HTTP/1.1 200 OK\r\n\r\n")
        return reader, writer

    assert await status_of(connect, "/", 0.1) == 200
    pair[1].close()
    await writer.wait_closed()


async def test_who_never_comes_to_the_point_is_not_read_on() -> None:
    """What it says lies there already, so that nobody else's turn would come in between."""
    reader, answer = StreamReader(), b"HTTP/1.1 100 \r\n\r\n" * 20_000
    reader.feed_data(answer)
    _, writer = await asyncio.open_connection(sock=(pair := socket.socketpair())[0])
    assert await status_of(lambda: _at_once(reader, writer), "/", 30) is None
    reader.feed_eof()
    assert len(answer) - len(await reader.read()) <= HEAD_BYTES_MAX
    pair[1].close()
    await writer.wait_closed()


async def _at_once(reader: StreamReader, writer: StreamWriter) -> tuple[StreamReader, StreamWriter]:
    return reader, writer


def test_what_is_well() -> None:
    assert [is_well(status) for status in (None, 199, 200, 399, 400, 503)] == [False, False, True, True, False, False]
