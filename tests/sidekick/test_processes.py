"""Processes: their list is whole and fits its frames, and the client believes no larger ones."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Internal
from atoll.domain.process import ProcessSpec
from atoll.sidekick import protocol as wire
from atoll.sidekick.client import Link
from tests.sidekick.running import RunningSidekick, receive_all, send


async def test_a_list_of_many_wide_processes_fits_its_frames(sidekick: RunningSidekick) -> None:
    wide = ("sh", "-c", "exec sleep 100", "\U0001f30a" * 400)
    started: set[str] = set()
    for _ in range(420):
        stream = await sidekick.client.start(ProcessSpec(wide))
        started.add(stream.id)
        await stream.close()
    with sidekick.open() as sock:
        send(sock, wire.REQUEST, {"op": "processes"})
        pieces = await asyncio.to_thread(receive_all, sock)
    assert max(len(wire.json_frame(*piece)) for piece in pieces) <= wire.MAX_FRAME_BYTES
    listed = await sidekick.client.processes()
    assert {info.id for info in listed} == started
    assert all(len(" ".join(info.argv)) <= 256 for info in listed)
    await sidekick.client.stop_all(0)


async def test_the_client_believes_no_frame_that_is_larger_than_one_may_be() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(wire.HEADER.pack(wire.RESULT, wire.MAX_FRAME_BYTES + 1))
    with pytest.raises(Internal, match="frame of"):
        async with asyncio.timeout(1):
            await Link(reader, None).read()  # type: ignore[arg-type]
