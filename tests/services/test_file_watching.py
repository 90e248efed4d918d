"""FileWatching: the rule of paths at this door, bounds of patterns, and streams that end with what they follow."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from tests.services.conftest import ALICE, BOB, House
from tests.services.test_files import BAD, chunks


@pytest.mark.parametrize("path", BAD, ids=repr)
async def test_f01_the_same_paths_are_refused_as_at_the_doors_of_files(house: House, path: str) -> None:
    sandbox = await house.create()
    with pytest.raises(InvalidInput) as caught:
        async with house.sandboxes.watches.follow(ALICE, sandbox.id, path):
            pass
    assert caught.value.field == "path"


async def test_patterns_have_bounds_and_a_watch_is_its_owners(house: House) -> None:
    sandbox, watches = await house.create(), house.sandboxes.watches
    for ignored in (["x"] * 65, ["x" * 257], [""], ["\0"], ["\udc80"]):
        with pytest.raises(InvalidInput, match="ignored"):
            async with watches.follow(ALICE, sandbox.id, "/tmp", ignored=ignored):
                pass
    with pytest.raises(NotFound):
        async with watches.follow(BOB, sandbox.id, "/tmp"):
            pass


async def test_a_stream_tells_its_path_then_changes_and_ends_with_the_server(house: House) -> None:
    sandbox, watches = await house.create(), house.sandboxes.watches
    stream = watches.stream(ALICE, sandbox.id, "/tmp")
    assert await anext(stream) == "/tmp"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await house.sandboxes.files.write(ALICE, sandbox.id, "/tmp/a", chunks(b"x"))
    piece = await waiting
    assert isinstance(piece, list) and [(one.kind, one.path) for one in piece] == [("add", "/tmp/a")]
    watches.drain()
    assert [piece async for piece in stream] == []


async def test_a_stream_ends_with_its_sandbox(house: House) -> None:
    sandbox = await house.create()
    stream = house.sandboxes.watches.stream(ALICE, sandbox.id, "/tmp")
    await anext(stream)
    await house.sandboxes.kill(ALICE, sandbox.id)
    with pytest.raises((Conflict, NotFound)):
        async with asyncio.timeout(3):
            async for _ in stream:
                pass
