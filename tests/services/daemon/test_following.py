"""Following: a stream that is left is closed before anybody goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.domain.errors import QuotaExceeded
from atoll.domain.process import ProcessInfo
from atoll.services.daemon.following import STREAMS_MAX, Following
from atoll.services.daemon.hub import Hub
from tests.services.daemon.conftest import ALICE

CHANNEL = "terminal:t"


class SlowStream:
    """Writes nothing, and takes until `closes` to close."""

    exit = None
    offset = 0

    def __init__(self, closes: asyncio.Event) -> None:
        self._closes = closes
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        await asyncio.Event().wait()
        yield 1, b""

    async def write_stdin(self, data: bytes) -> None: ...

    async def close(self) -> None:
        await self._closes.wait()
        self.closed = True


class Processes:
    """One terminal, whose streams are counted."""

    def __init__(self) -> None:
        self.streams: list[SlowStream] = []
        self.closes = asyncio.Event()

    async def list(self, *_: Any) -> list[ProcessInfo]:
        return [ProcessInfo("p1", ("sh",), 2, True, 0.0, 0, 0, label="term:t")]

    async def attach(self, *_: Any, **__: Any) -> SlowStream:
        self.streams.append(SlowStream(self.closes))
        return self.streams[-1]


async def followed() -> tuple[Processes, Following]:
    processes, hub = Processes(), Hub()
    with hub.listening(lambda _: None) as listener:
        return processes, Following(processes, ALICE, "sess_0", hub, listener)  # type: ignore[arg-type]


async def opened(processes: Processes, count: int) -> None:
    async with asyncio.timeout(5):
        while len(processes.streams) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_who_leaves_a_channel_goes_on_once_its_stream_is_closed() -> None:
    processes, following = await followed()
    following.follow(CHANNEL)
    await opened(processes, 1)
    leaving = asyncio.create_task(following.unfollow(CHANNEL))
    await asyncio.sleep(0.01)
    assert not leaving.done()
    processes.closes.set()
    await leaving
    assert processes.streams[0].closed
    await following.unfollow(CHANNEL)  # there is none: nothing to wait for


async def test_nothing_is_left_open_not_even_what_was_left_before() -> None:
    processes, following = await followed()
    await following.type("t", b"x")  # for input only, until somebody wants to hear it
    following.follow(CHANNEL)
    await opened(processes, 2)
    closing = asyncio.create_task(following.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    processes.closes.set()
    await closing
    assert [stream.closed for stream in processes.streams] == [True, True]


async def test_streams_that_are_about_to_end_count_among_those_that_there_may_be() -> None:
    processes, following = await followed()
    for number in range(STREAMS_MAX // 2):
        await following.type("t", b"x")
        following.follow(CHANNEL)
        await opened(processes, 2 * number + 2)
        following._leave(CHANNEL)
    with pytest.raises(QuotaExceeded):
        following.follow(CHANNEL)
    processes.closes.set()
    await following.close()
