"""Record: a running task's record in this server: changed by compare-and-set, each change with what it tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from atoll.agents.base import Said
from atoll.domain.errors import Conflict, StaleVersion
from atoll.domain.event import Event
from atoll.domain.ledger import Spent
from atoll.domain.price import TokenUse
from atoll.domain.task import Task, TaskEvent, TaskState
from atoll.services.ledger.warnings import passed
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.transcript import bounded

_log = structlog.get_logger()

SWAPS_MAX = 16
PAGE = 1_000
CUT = "this task tells more than is kept: what follows is left out, but for its end"
LAST = 8  # events that are told whatever the bound: how it ended, and that there were more


class Taken(Conflict):
    """Another server runs this task now."""


class Record:
    """Of one task that this server has claimed. `change` waits for the changes before it."""

    def __init__(self, access: TaskAccess, task: Task) -> None:
        self._access = access
        self.task = task
        self._seq = 0
        self._bytes = 0
        self._cut = False
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Learn what was told before, by whichever server."""
        while page := await self._access.records.task_events(self.task.id, after=self._seq, limit=PAGE):
            self._stored(page)

    def used(self, tokens: TokenUse, cost: int) -> list[Said]:
        """Stored with the next change; what is to be told of it."""
        before, limit = self.task.cost, self.task.spec.budget_micro_usd
        self.task = task = replace(self.task, tokens=self.task.tokens + tokens, cost=before + cost)
        told = {
            "inputTokens": task.tokens.input,
            "outputTokens": task.tokens.output,
            "cachedInputTokens": task.tokens.cached,
            "costMicroUsd": task.cost,
        }
        said = [Said("usage", told)]
        for percent in () if limit is None else passed(Spent(task.id, limit, before, task.cost)):
            message = f"{percent} % of the task's budget is spent"
            data = {"message": message, "percent": percent, "spentMicroUsd": task.cost, "limitMicroUsd": limit}
            said.append(Said("warning", data))
        return said

    def counted(self, tokens: TokenUse, cost: int) -> None:
        """What the ledger says that it used in all; stored with the next change."""
        self.task = replace(self.task, tokens=tokens, cost=cost)

    async def change(
        self,
        state: TaskState | None = None,
        *,
        said: Iterable[Said] = (),
        event: Event | None = None,
        whatever: bool = False,
        **changes: Any,
    ) -> Task:
        """Store it. `said` beyond the bounds is left out, but for what is told `whatever` they are. Taken when another
        server has the task."""
        access = self._access
        async with self._lock:
            told = self._numbered(said, whatever)
            for _ in range(SWAPS_MAX):
                before = self.task
                after = before.to(state, **changes) if state is not None else replace(before, **changes)
                try:
                    stored = await access.records.swap_task(after, event, told=told)
                except StaleVersion:
                    await self._reread()
                    told = await self._untold(told)
                    if state is not None and self.task.state is state:  # its commit took place, but nobody heard of it
                        state, event, changes = None, None, {}
                    continue
                # What the model gateway counted meanwhile is not in what was stored.
                self.task = replace(stored, tokens=self.task.tokens, cost=self.task.cost)
                break
            else:
                raise StaleVersion()
            self._stored(told)
            access.feed.tell(stored.id, told)
            return stored

    async def _reread(self) -> None:
        """Somebody else changed it: asked for its end, or took it over."""
        found = await self._access.records.get_task(self.task.id)
        if found is None or found.ended or found.claimed_by != self._access.server():
            raise Taken(f"task {self.task.id} is another server's now")
        self.task = replace(found, tokens=self.task.tokens, cost=self.task.cost)

    async def _untold(self, told: Sequence[TaskEvent]) -> Sequence[TaskEvent]:
        """Numbered behind what is stored: a commit that nobody heard of may have stored the first of them, or others
        before them."""
        access = self._access
        while page := await access.records.task_events(self.task.id, after=self._seq, limit=PAGE):
            self._stored(page)
            access.feed.tell(self.task.id, page)
            for one in page:
                if told and _same(told[0], one):
                    told = told[1:]
        return [replace(one, seq=self._seq + n) for n, one in enumerate(told, 1)]

    def _stored(self, told: Sequence[TaskEvent]) -> None:
        """What comes next is numbered behind them."""
        for one in told:
            self._seq = one.seq
            self._bytes += _size(one.data)
            self._cut = self._cut or (one.type == "warning" and one.data.get("message") == CUT)

    def _numbered(self, said: Iterable[Said], whatever: bool) -> Sequence[TaskEvent]:
        limits, now = self._access.limits, self._access.clock()
        told: list[TaskEvent] = []
        size, cut = self._bytes, self._cut
        for one in said:
            data = bounded(one.data, limits.event_chars_max)
            more = _size(data)
            seq = self._seq + len(told) + 1
            full = seq > limits.events_max - LAST or size + more > limits.events_bytes_max
            if not full or whatever:
                told.append(TaskEvent(seq, one.type, now, data))
                size += more
            elif not cut:
                cut = True
                told.append(TaskEvent(seq, "warning", now, {"message": CUT}))
        return told


def _size(data: Mapping[str, Any]) -> int:
    return len(json.dumps(dict(data)))


def _same(one: TaskEvent, other: TaskEvent) -> bool:
    return one.type == other.type and json.dumps(dict(one.data)) == json.dumps(dict(other.data))
