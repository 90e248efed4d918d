"""What waits to be written is written once, also when the queue is closed in the middle of a write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from atoll.services import write_behind
from atoll.services.write_behind import WriteBehind


class Store:
    """Keeps what it is given once it is let; `begun` says that a write is under way."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.begun, self.let = asyncio.Event(), asyncio.Event()

    async def write(self, items: Sequence[int]) -> None:
        self.begun.set()
        await self.let.wait()
        self.kept += items


def queue_of(store: Store, lost: list[int]) -> WriteBehind[int]:
    return WriteBehind("numbers", store.write, lost.append, items_max=10, batch_items=2, every_s=0.01)


async def test_a_write_under_way_is_ended_and_not_made_again() -> None:
    store, lost = Store(), list[int]()
    queue = queue_of(store, lost)
    queue.start()
    for number in (1, 2, 3):
        queue.add(number)
    async with asyncio.timeout(5):
        await store.begun.wait()
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0)
    store.let.set()
    await closing
    assert (store.kept, lost) == ([1, 2, 3], [])


async def test_what_was_added_before_the_first_look_is_written_at_the_close() -> None:
    store, lost = Store(), list[int]()
    store.let.set()
    queue = queue_of(store, lost)
    queue.start()
    queue.add(1)
    await queue.close()
    await queue.close()
    assert (store.kept, lost) == ([1], [])


async def test_a_store_that_hangs_holds_up_no_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "CLOSE_S", 0.02)
    store, lost = Store(), list[int]()
    queue = queue_of(store, lost)
    queue.start()
    queue.add(1)
    async with asyncio.timeout(5):
        await queue.close()
    assert store.kept == []
