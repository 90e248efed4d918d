"""Feed: tells whoever waits that chains grew, whichever server made them grow; streams and webhooks wait on it.

One look at the heads of the chains, at short intervals, serves all of them; without anybody waiting there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from atoll.domain.errors import AtollError
from atoll.records.base import Records

_log = structlog.get_logger()

EVERY_S = 0.5
ASKED_MAX = 500  # more tenants than that, and all heads are looked at


@dataclass(eq=False, slots=True)
class Ear:
    """Who waits; `tenants` None: for all. Its `grown` are those whose chains grew since it looked last."""

    tenants: frozenset[str] | None
    grown: dict[str, int] = field(default_factory=dict[str, int])  # tenant -> number of its last event
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> None:
        """Until something grew, or that long."""
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            pass
        self.changed.clear()

    def take(self) -> dict[str, int]:
        """What grew, once."""
        grown, self.grown = self.grown, {}
        return grown


class Feed:
    """Between `start` and `close`."""

    def __init__(self, records: Records, every_s: float = EVERY_S) -> None:
        self._records = records
        self._every_s = every_s
        self._ears: set[Ear] = set()
        self._known: dict[str, int] = {}
        self._somebody = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._forever(), name="event feed")

    async def close(self) -> None:
        """Wake everybody a last time; a second call does nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.wake()

    def wake(self) -> None:
        """Let everybody look, whether or not something grew."""
        for ear in self._ears:
            ear.changed.set()

    @contextmanager
    def listening(self, tenants: Collection[str] | None) -> Generator[Ear]:
        """While it is open the ear hears. What it has to know already is to be read after it was opened."""
        ear = Ear(None if tenants is None else frozenset(tenants))
        self._ears.add(ear)
        self._somebody.set()
        try:
            yield ear
        finally:
            self._ears.discard(ear)
            if not self._ears:
                self._somebody.clear()
                self._known.clear()

    async def _forever(self) -> None:
        while True:
            await self._somebody.wait()
            try:
                await self._look()
            except AtollError as error:
                _log.warning("events.feed_waits", error=error.message)
            except Exception:
                _log.exception("events.feed_failed")
            await asyncio.sleep(self._every_s)

    async def _look(self) -> None:
        asked: set[str] | None = set()
        for ear in self._ears:
            if ear.tenants is None or asked is None or len(asked) > ASKED_MAX:
                asked = None
            else:
                asked |= ear.tenants
        heads = await self._records.list_heads(asked)
        grown = {head.tenant: head.seq for head in heads if self._known.get(head.tenant) != head.seq}
        self._known |= grown
        for ear in self._ears if grown else ():
            mine = grown if ear.tenants is None else {name: grown[name] for name in ear.tenants & grown.keys()}
            if mine:
                ear.grown |= mine
                ear.changed.set()
