"""The part of the records contract about the marketplace's workers; `Records` includes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.worker import Worker, WorkerQuery, WorkerUse


class WorkerRecords(ABC):
    """See `Records` for what holds of all."""

    @abstractmethod
    async def publish_worker(self, worker: Worker, event: Event, *, quota: int, versions: int) -> Worker:
        """Store it as its author's first, or as the next version of the author's worker of that name: `next_version`
        decides, and the event's target becomes its id. QuotaExceeded when the author has `quota` of them, or that one
        `versions`; NotFound when its author is a user who is gone."""

    @abstractmethod
    async def delete_worker(self, worker: Worker, event: Event) -> bool:
        """With its versions and what anybody had of it. Whether it was there."""

    @abstractmethod
    async def get_worker(self, worker_id: str, version: str | None = None) -> Worker | None:
        """The current version, or that one."""

    @abstractmethod
    async def worker_versions(self, worker_id: str, *, limit: int = 1000) -> Sequence[Worker]:
        """Newest first."""

    @abstractmethod
    async def search_workers(self, query: WorkerQuery, *, limit: int = 100, offset: int = 0) -> Sequence[Worker]:
        """The most installed first; of those the newest."""

    @abstractmethod
    async def worker_use(self, worker_id: str, principal: str) -> WorkerUse | None: ...

    @abstractmethod
    async def install_worker(self, worker: Worker, principal: str, at: datetime, event: Event) -> Worker:
        """Counted once for each principal: the second time nothing changes, and there is no event. NotFound."""

    @abstractmethod
    async def note_worker_run(self, worker: Worker, principal: str, at: datetime, event: Event) -> None:
        """That the principal ran it; NotFound."""

    @abstractmethod
    async def rate_worker(self, worker: Worker, principal: str, stars: int, event: Event) -> Worker:
        """In place of what the principal gave before; `rated` decides. NotFound."""
