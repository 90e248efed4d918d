"""Archives: what is not worth unpacking is given up at once, and nothing of it goes on in the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from atoll.domain.errors import InvalidInput, TooLarge
from atoll.services.archives import Archives

from .conftest import ALICE, House


async def too_large() -> AsyncIterator[bytes]:
    yield bytes(512)
    yield bytes(2_000)
    await asyncio.Event().wait()


async def broken_off() -> AsyncIterator[bytes]:
    yield bytes(512)
    raise InvalidInput("the upload broke off")


@pytest.mark.parametrize(
    ("chunks", "error"), [(too_large, TooLarge), (broken_off, InvalidInput)], ids=["too large", "broken off"]
)
async def test_a_body_that_fails_ends_tar_which_waits_for_the_rest_of_it(
    house: House, chunks: object, error: type[Exception]
) -> None:
    sandbox = await house.create()
    archives = Archives(house.sandboxes.processes, house.sandboxes.files, 1_024)
    async with asyncio.timeout(3):
        with pytest.raises(error, match=r"larger|broke off"):
            await archives.unpack(ALICE, sandbox.id, "/tmp/into", chunks())  # type: ignore[operator]
    assert all(one.exit for one in house.host.sandboxes[sandbox.id].processes.values())
