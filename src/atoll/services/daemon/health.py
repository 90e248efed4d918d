"""Health: one look at a server inside a sandbox: GET a path of its port, and what came back. `servers` asks often."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

import h11

from atoll.domain.errors import AtollError
from atoll.services.patience import patience

HEAD_BYTES_MAX = 16_384  # of all that is read, the interim answers before the one that counts included
INTERIM_MAX = 16

Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


async def status_of(connect: Connect, path: str, timeout_s: float) -> int | None:
    """The status that it answers with, redirects not followed; None when it does not answer in time, or not HTTP."""
    try:
        return await patience(timeout_s, _connect_and_ask(connect, path), "the health check")
    except (AtollError, OSError, h11.RemoteProtocolError):
        return None


async def _connect_and_ask(connect: Connect, path: str) -> int:
    reader, writer = await connect()
    try:
        return await _ask(reader, writer, path)
    finally:
        writer.close()


async def _ask(reader: StreamReader, writer: StreamWriter, path: str) -> int:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    headers = [("host", "localhost"), ("user-agent", "atoll-health"), ("connection", "close")]
    writer.write(client.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
    writer.write(client.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    left, interim = HEAD_BYTES_MAX, 0
    while interim <= INTERIM_MAX:
        event = client.next_event()
        if event is h11.NEED_DATA and left:
            data = await reader.read(left)
            left -= len(data)
            client.receive_data(data)
        elif isinstance(event, h11.Response):
            return event.status_code
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
        else:
            break
    raise h11.RemoteProtocolError("no answer")


def is_well(status: int | None) -> bool:
    return status is not None and 200 <= status < 400
