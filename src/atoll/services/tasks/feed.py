"""Feed: what happens in tasks, told live to whoever follows them; the store has what went before.

A follower holds no queue: it is woken and reads on from its place, from the newest events here or from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from atoll.domain.task import TaskEvent
from atoll.records.base import Records

RECENT = 256  # events of one task that are at hand without a look into the store
PAGE = 20  # from the store: a follower that does not read keeps one, of events that may be large
NEVER = 2**40  # the number of no event: who follows from there on waits for the end
LOOK_EVERY_S = 0.5  # at the store, for a task that another server runs


class _Topic:
    __slots__ = ("changed", "recent", "running")

    def __init__(self) -> None:
        self.recent: deque[TaskEvent] = deque(maxlen=RECENT)
        self.changed = asyncio.Event()
        self.running = False


class Feed:
    """One for a server."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._topics: dict[str, _Topic] = {}
        self._followers: dict[str, int] = {}

    def open(self, task_id: str) -> None:
        """This server runs the task: every event of it comes through `tell`."""
        self._topics.setdefault(task_id, _Topic()).running = True

    def tell(self, task_id: str, events: Sequence[TaskEvent]) -> None:
        """They are stored."""
        topic = self._topics.get(task_id)
        if topic is not None and events:
            topic.recent.extend(events)
            self._wake(topic)

    def close(self, task_id: str) -> None:
        """This server runs it no more: it has ended, or another server has it."""
        topic = self._topics.get(task_id)
        if topic is not None:
            topic.running = False
            self._wake(topic)
            if not self._followers.get(task_id):
                del self._topics[task_id]

    def wake(self, task_id: str) -> None:
        """Something of it changed in the store."""
        topic = self._topics.get(task_id)
        if topic is not None:
            self._wake(topic)

    async def follow(self, task_id: str, after: int) -> AsyncGenerator[TaskEvent]:
        """What comes after that number, to the end of the task."""
        topic = self._topics.setdefault(task_id, _Topic())
        self._followers[task_id] = self._followers.get(task_id, 0) + 1
        try:
            while True:
                changed = topic.changed
                # Whether it has ended is asked first: what ends it is then among the events that are read.
                task = None if topic.running else await self._records.get_task(task_id)
                over = not topic.running and (task is None or task.ended)
                events = await self._next(topic, task_id, after)
                for one in events:
                    after = one.seq
                    yield one
                if over and not events:
                    return
                if not events:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if topic.running else LOOK_EVERY_S):
                            await changed.wait()
        finally:
            self._leave(task_id, topic)

    async def _next(self, topic: _Topic, task_id: str, after: int) -> list[TaskEvent]:
        if after >= NEVER:
            return []
        recent = topic.recent
        if topic.running and recent and recent[0].seq <= after + 1:
            return [one for one in recent if one.seq > after]
        return await self._records.task_events(task_id, after=after, limit=PAGE)

    def _leave(self, task_id: str, topic: _Topic) -> None:
        left = self._followers[task_id] - 1
        if left:
            self._followers[task_id] = left
            return
        del self._followers[task_id]
        if not topic.running and self._topics.get(task_id) is topic:
            del self._topics[task_id]

    def _wake(self, topic: _Topic) -> None:
        topic.changed.set()
        topic.changed = asyncio.Event()
