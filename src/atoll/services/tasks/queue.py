"""Queue: which tasks this server runs: claimed from the records by turns among owners, kept by renewing the claims."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.task import Task, TaskEnd
from atoll.services.tasks.access import TaskAccess
from atoll.services.tasks.requests import TaskLimits
from atoll.services.tasks.running import CANCELLED, Run, Stop

_log = structlog.get_logger()

LOOK_EVERY_S = 2.0  # for tasks whose server went away, and those that another server was asked for
AGAIN_S = 1.0
PRUNE_EVERY_S = 600.0
PRUNED_AT_ONCE = 20  # tasks with all that was told of them: one write, for which the others wait
PRUNED_AGAIN_S = 0.2


class Queue:
    """`start` once the sandboxes are adopted; `close` lets go of what runs, which goes on without this server."""

    def __init__(self, access: TaskAccess) -> None:
        self._access = access
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self.waiting: set[str] = set()

    async def start(self) -> None:
        await asyncio.to_thread(self._access.server)
        await self._count()
        self._loops = [
            asyncio.create_task(self._claim_on_demand(), name="task queue"),
            asyncio.create_task(self._renew_on_timer(), name="task claims"),
            asyncio.create_task(self._prune_on_timer(), name="task pruning"),
        ]

    async def close(self) -> None:
        """A second call does nothing."""
        running = [*self._loops, *self._tasks.values()]
        for one in running:
            one.cancel()
        if running:
            await asyncio.wait(running, timeout=self._access.limits.close_s)
        self._loops.clear()

    def added(self, task: Task) -> None:
        """A task waits for its turn."""
        self.waiting.add(task.id)
        self._wake.set()

    def left(self, task_id: str) -> None:
        """It does not wait any more."""
        self.waiting.discard(task_id)

    def run(self, task_id: str) -> Run | None:
        """Where this server runs it."""
        return self._runs.get(task_id)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs.values()))

    @property
    def limits(self) -> TaskLimits:
        return self._access.limits

    async def _claim_on_demand(self) -> None:
        while True:
            try:
                while await self._claim() and self.waiting:
                    pass
            except AtollError as error:
                _log.warning("tasks.unclaimed", error=error.message)
                await asyncio.sleep(AGAIN_S)
            except Exception:  # whatever it is: without this loop no task would run any more
                _log.exception("tasks.unclaimed")
                await asyncio.sleep(AGAIN_S)
            self._access.metrics.tasks.queue(len(self._runs), len(self.waiting))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _claim(self) -> int:
        """Claim what there is room for, and start it; how many."""
        access, limits = self._access, self.limits
        room = limits.tasks_max - len(self._runs)
        if room <= 0:
            return 0
        now = access.clock()
        claimed = await access.records.claim_tasks(
            access.server(),
            now,
            now + timedelta(seconds=limits.lease_s),
            limit=room,
            per_owner=limits.tasks_per_owner,
            running=list(self._runs),
        )
        for task in claimed:
            self.left(task.id)
            self._start(task)
        return len(claimed)

    def _start(self, task: Task) -> None:
        run = self._runs[task.id] = Run(self._access, task)
        working = self._tasks[task.id] = asyncio.create_task(run.run(), name=f"run {task.id}")
        working.add_done_callback(lambda done: self._done(task.id, done))

    def _done(self, task_id: str, done: asyncio.Task[None]) -> None:
        del self._runs[task_id], self._tasks[task_id]
        if not done.cancelled() and (fault := done.exception()) is not None:
            if isinstance(fault, Unavailable):  # it is taken up again, in a while
                _log.warning("task.postponed", task=task_id, error=fault.message)
            else:
                _log.error("task.broken", task=task_id, exc_info=fault)
        elif self.waiting:
            self._wake.set()

    async def _renew_on_timer(self) -> None:
        while True:
            await asyncio.sleep(self.limits.lease_s / 3)
            try:
                await self._renew()
                await self._count()
            except AtollError as error:
                _log.warning("tasks.unrenewed", error=error.message)
            except Exception:  # whatever it is: without this loop others would take every task
                _log.exception("tasks.unrenewed")

    async def _renew(self) -> None:
        access, ids = self._access, list(self._runs)
        kept = await access.records.renew_claims(
            access.server(), ids, access.clock() + timedelta(seconds=self.limits.lease_s)
        )
        for task_id in ids:
            run = self._runs.get(task_id)
            if run is None:
                continue
            stored = await access.records.get_task(task_id)
            if self._runs.get(task_id) is not run:
                continue  # it ended meanwhile
            if stored is not None and stored.cancel_asked:
                run.stop(Stop(TaskEnd.CANCELLED, CANCELLED))
            if task_id not in kept and not run.task.ended and (stored is None or not stored.ended):
                self._tasks[task_id].cancel()

    async def _prune_on_timer(self) -> None:
        while True:
            try:
                await self._prune()
            except AtollError as error:
                _log.warning("tasks.unpruned", error=error.message)
            except Exception:
                _log.exception("tasks.unpruned")
            await asyncio.sleep(PRUNE_EVERY_S)

    async def _prune(self) -> None:
        """What ended long ago is forgotten, with what was told of it: few at a time, and others write in between."""
        before = self._access.clock() - timedelta(seconds=self.limits.kept_s)
        records, gone = self._access.records, PRUNED_AT_ONCE
        while gone == PRUNED_AT_ONCE:
            gone = await records.prune_tasks(before, limit=PRUNED_AT_ONCE)
            await asyncio.sleep(PRUNED_AGAIN_S)

    async def _count(self) -> None:
        """Other servers take some, and give some."""
        self.waiting = set(await self._access.records.waiting_tasks(limit=self.limits.waiting_max))
