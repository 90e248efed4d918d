"""The marketplace's part of MemoryRecords, in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from atoll.domain.errors import NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.worker import Worker, WorkerQuery, WorkerUse, next_version, rated, sought_in
from atoll.records.workers import WorkerRecords
from atoll.testing.memory_events import MemoryEvents


class MemoryWorkers(MemoryEvents, WorkerRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._workers: dict[str, Worker] = {}
        self._worker_versions: dict[str, list[Worker]] = {}
        self._worker_uses: dict[tuple[str, str], WorkerUse] = {}

    async def publish_worker(self, worker: Worker, event: Event, *, quota: int, versions: int) -> Worker:
        self._check()
        whole: Any = self
        whole._hold_owner(worker.author)
        own = [one for one in self._workers.values() if one.author == worker.author]
        before = next((one for one in own if one.name == worker.name), None)
        made = next_version(before, replace(worker, created_at=worker.created_at.astimezone(UTC)))
        published = self._worker_versions.get(made.id, [])
        for what, have, most in (
            ("worker", len(own) if before is None else 0, quota),
            ("version", len(published), versions),
        ):
            if have >= most:
                raise QuotaExceeded(f"{what} limit reached ({have}/{most})")
        self._workers[made.id] = made
        self._worker_versions[made.id] = [*published, made]
        self._log(replace(event, target=made.id, detail={**event.detail, "version": made.version}))
        return made

    async def delete_worker(self, worker: Worker, event: Event) -> bool:
        self._check()
        there = self._workers.pop(worker.id, None) is not None
        if there:
            del self._worker_versions[worker.id]
            self._worker_uses = {at: use for at, use in self._worker_uses.items() if at[0] != worker.id}
            self._log(event)
        return there

    async def get_worker(self, worker_id: str, version: str | None = None) -> Worker | None:
        self._check()
        found = [self._with_counts(one) for one in self._worker_versions.get(worker_id, ())]
        return next((one for one in reversed(found) if version in (None, one.version)), None)

    async def worker_versions(self, worker_id: str, *, limit: int = 1000) -> Sequence[Worker]:
        self._check()
        found = [self._with_counts(one) for one in self._worker_versions.get(worker_id, ())]
        return found[::-1][:limit]

    async def search_workers(self, query: WorkerQuery, *, limit: int = 100, offset: int = 0) -> Sequence[Worker]:
        self._check()
        found = [
            one
            for one in self._workers.values()
            if one.seen_by(query.seer)
            and query.text.casefold() in sought_in(one)
            and (not query.tags or set(query.tags) & set(one.tags))
            and query.author in (None, one.author)
            and (query.price_max_micro_usd is None or one.price_micro_usd <= query.price_max_micro_usd)
        ]
        found.sort(key=lambda one: (-one.installs, -one.created_at.timestamp(), one.id))
        return found[offset : offset + limit]

    async def worker_use(self, worker_id: str, principal: str) -> WorkerUse | None:
        self._check()
        return self._worker_uses.get((worker_id, principal))

    async def install_worker(self, worker: Worker, principal: str, at: datetime, event: Event) -> Worker:
        self._check()
        found, use = self._both(worker.id, principal)
        if use.installed_at is None:
            self._worker_uses[worker.id, principal] = replace(use, installed_at=at)
            found = self._workers[worker.id] = replace(found, installs=found.installs + 1)
            self._log(event)
        return found

    async def note_worker_run(self, worker: Worker, principal: str, at: datetime, event: Event) -> None:
        self._check()
        _, use = self._both(worker.id, principal)
        self._worker_uses[worker.id, principal] = replace(use, ran_at=at)
        self._log(event)

    async def rate_worker(self, worker: Worker, principal: str, stars: int, event: Event) -> Worker:
        self._check()
        found, use = self._both(worker.id, principal)
        found = self._workers[worker.id] = rated(found, use, stars)
        self._worker_uses[worker.id, principal] = replace(use, stars=stars)
        self._log(event)
        return found

    def _both(self, worker_id: str, principal: str) -> tuple[Worker, WorkerUse]:
        if worker_id not in self._workers:
            raise NotFound(f"worker {worker_id} does not exist")
        return self._workers[worker_id], self._worker_uses.get((worker_id, principal), WorkerUse(worker_id, principal))

    def _with_counts(self, version: Worker) -> Worker:
        now = self._workers[version.id]
        return replace(version, public=now.public, installs=now.installs, ratings=now.ratings, stars=now.stars)
