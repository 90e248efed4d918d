"""The doubles of blobs and vault break as they say they do."""

from __future__ import annotations

import asyncio

import pytest

from atoll.domain.errors import Corrupt, NotFound, Unavailable
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_vault import MemoryVault


@pytest.fixture
async def blobs() -> MemoryBlobs:
    store = MemoryBlobs()
    await store.start()
    await store.put("k", b"value")
    return store


async def test_calls_fail_when_they_are_told_to_and_leave_nothing(blobs: MemoryBlobs) -> None:
    blobs.fail_next(2, after=1)
    assert await blobs.get("k") == b"value"
    with pytest.raises(Unavailable):
        await blobs.put("k", b"new")
    with pytest.raises(Unavailable):
        await blobs.delete("k")
    assert await blobs.get("k") == b"value"
    blobs.fail_next(1, NotFound("lost"))
    with pytest.raises(NotFound):
        await blobs.get("k")
    assert blobs.calls["get"] == 3


async def test_calls_wait_while_it_does_not_answer(blobs: MemoryBlobs) -> None:
    blobs.answers.clear()
    getting = asyncio.create_task(blobs.get("k"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not getting.done()
    blobs.answers.set()
    assert await getting == b"value"


async def test_a_flipped_bit_is_flipped(blobs: MemoryBlobs) -> None:
    blobs.flip("k", 2)
    assert await blobs.get("k") == b"vamue"


async def test_a_vault_that_is_away_or_has_another_key() -> None:
    vault = MemoryVault()
    wrapped = await vault.wrap(bytes(32), "lin")
    vault.available = False
    with pytest.raises(Unavailable):
        await vault.unwrap(wrapped, "lin")
    vault.available = True
    assert await vault.unwrap(wrapped, "lin") == bytes(32)
    vault.new_master_key()
    with pytest.raises(Corrupt):
        await vault.unwrap(wrapped, "lin")
