from __future__ import annotations

import asyncio
import hashlib

import pytest

from atoll.domain.chunk_ids import CHUNK_BYTES, hole_run
from atoll.domain.errors import DeadlineExceeded
from atoll.domain.tree import Entry, EntryKind
from atoll.services.objects import checksums
from atoll.services.objects.checksums import AT_ONCE, Checksums
from tests.services.workspaces.storage import Storage


async def test_what_was_read_before_the_deadline_is_known_afterwards(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "SLOW_BYTES_S", 2**60)
    lineage = (await storage.lineage()).id
    _, small = await storage.tree(lineage, {b"small": b"some"})
    sums = Checksums(storage.chunks, read_s=0.5)
    with pytest.raises(DeadlineExceeded):
        await sums.of("alice", lineage, [small, holes(2**20)])
    assert await sums.of("alice", lineage, [small]) == [hashlib.md5(b"some", usedforsecurity=False).digest()]
    assert sums.read_bytes == 4


async def test_who_asks_for_much_is_in_nobody_elses_way(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    _, small = await storage.tree(lineage, {b"small": b"some"})
    sums = Checksums(storage.chunks)
    much = [asyncio.create_task(sums.of("mallory", lineage, [holes(2**20 + n)])) for n in range(2 * AT_ONCE)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert len(await sums.of("alice", lineage, [small])) == 1
        assert not any(task.done() for task in much)
    finally:
        for task in much:
            task.cancel()
        await asyncio.gather(*much, return_exceptions=True)


def holes(chunks: int) -> Entry:
    """A file of nothing else, as `truncate` makes them."""
    return Entry(b"holes", EntryKind.FILE, size=chunks * CHUNK_BYTES, chunks=hole_run(chunks))
