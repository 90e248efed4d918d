"""Marketplace: publish a worker, find one, install and rate it; `.runs` runs one. The marketplace's routes call it.

A worker that is not public is an unknown one to everybody but its author. Errors of what a caller may not do come as
everywhere: Forbidden without the scope, NotFound `worker not found`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.sandbox import SandboxSpec
from atoll.domain.worker import STARS_MAX, WORKER_ID, Worker, WorkerQuery
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.ledger.ledger import Ledger
from atoll.services.marketplace.persons import is_author, person_of
from atoll.services.marketplace.publishing import Offer, check_offer, price_of
from atoll.services.marketplace.runs import WorkerRuns
from atoll.services.sandboxes import Sandboxes

SEARCH_MAX = 1000


@dataclass(frozen=True, slots=True)
class MarketplaceLimits:
    """How much there may be of it."""

    workers_per_author: int = 100
    versions_per_worker: int = 100
    run_s: float = 60.0  # that a run may take where its caller says nothing
    run_s_max: float = 900.0
    output_bytes_max: int = 8 * 2**20


class NoWorker(NotFound):
    """Worker not found"""


class Marketplace:
    """Use cases of workers."""

    def __init__(
        self,
        records: Records,
        sandboxes: Sandboxes,
        ledger: Ledger,
        limits: MarketplaceLimits | None = None,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._templates = sandboxes.templates
        self._limits = limits = limits or MarketplaceLimits()
        self._clock = clock
        self.runs = WorkerRuns(
            records,
            sandboxes,
            ledger,
            run_s_max=limits.run_s_max,
            output_bytes_max=limits.output_bytes_max,
            clock=clock,
        )

    def drain(self) -> None:
        """The server stops: what it cuts short from now on costs nothing."""
        self.runs.drain()

    async def close(self) -> None:
        """Let what runs end its sandboxes."""
        await self.runs.close()

    async def publish(self, principal: Principal, offer: Offer) -> Worker:
        """The author's first of that name, or its next version. Needs `write`.

        InvalidInput names the field; Conflict for a version that is not above the last; QuotaExceeded.
        """
        author = principal.owning(Scope.WRITE)
        check_offer(offer)
        price = price_of(offer.pricing)
        if offer.command:
            await self._check_template(offer.template)
        now = self._clock()
        worker = Worker(
            new_id("wkr"), author, offer.name, offer.version or "", offer.description, now, now,
            tags=tuple(dict.fromkeys(offer.tags)),
            endpoint_url=offer.endpoint_url,
            command=offer.command,
            template=offer.template,
            pricing=dict(offer.pricing),
            price_micro_usd=price,
            public=offer.public,
        )  # fmt: skip
        detail = {"name": offer.name, "price_micro_usd": price, "public": offer.public}
        event = Event("worker.published", worker.id, author, actor=principal.id, detail=detail, at=now)
        limits = self._limits
        return await self._records.publish_worker(
            worker, event, quota=limits.workers_per_author, versions=limits.versions_per_worker
        )

    async def unpublish(self, principal: Principal, worker_id: str) -> None:
        """Take it back, with all its versions and ratings. Needs `write`; NotFound for whoever is not its author."""
        author = principal.owning(Scope.WRITE)
        worker = await self._found(principal, worker_id)
        if worker.author != author:
            raise NoWorker
        event = self._event("worker.unpublished", worker, author, name=worker.name)
        if not await self._records.delete_worker(worker, event):
            raise NoWorker

    async def get(self, principal: Principal, worker_id: str, version: str | None = None) -> Worker:
        """The current version, or that one. Needs `read`."""
        principal.require(Scope.READ)
        return await self._found(principal, worker_id, version)

    async def versions(self, principal: Principal, worker_id: str) -> Sequence[Worker]:
        """Newest first. Needs `read`."""
        worker = await self.get(principal, worker_id)
        return await self._records.worker_versions(worker.id, limit=self._limits.versions_per_worker)

    async def search(
        self,
        principal: Principal,
        text: str = "",
        tags: Sequence[str] = (),
        *,
        author: str | None = None,
        price_max_micro_usd: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[Worker]:
        """Those with that text in name or description and any of the tags, whose current version's run costs no more
        than that, the most installed first. Needs `read`."""
        principal.require(Scope.READ)
        query = WorkerQuery(principal.id, text, tuple(tags), author, price_max_micro_usd)
        return await self._records.search_workers(query, limit=max(0, min(limit, SEARCH_MAX)), offset=max(0, offset))

    async def install(self, principal: Principal, worker_id: str) -> Worker:
        """Note that the principal uses it; each person counts once, a group's sandbox as who stands behind it, and its
        author never. Needs `write`."""
        tenant = principal.owning(Scope.WRITE)
        worker = await self._found(principal, worker_id)
        who = await person_of(self._records, principal)
        if await is_author(self._records, worker, principal, who):
            return worker
        event = self._event("worker.installed", worker, tenant, version=worker.version)
        return await self._records.install_worker(worker, who, self._clock(), event)

    async def rate(self, principal: Principal, worker_id: str, stars: int) -> Worker:
        """1 to 5, in place of what the principal gave before. Needs `write`. Conflict for its author, also as
        a group's member or sandbox, and for who has neither installed nor run it."""
        tenant = principal.owning(Scope.WRITE)
        if not 1 <= stars <= STARS_MAX:
            raise InvalidInput(f"rating must be 1 to {STARS_MAX}", field="rating")
        worker = await self._found(principal, worker_id)
        who = await person_of(self._records, principal)
        if await is_author(self._records, worker, principal, who):
            raise Conflict("an author does not rate a worker of their own")
        event = self._event("worker.rated", worker, tenant, stars=stars)
        return await self._records.rate_worker(worker, who, stars, event)

    async def _found(self, principal: Principal, worker_id: str, version: str | None = None) -> Worker:
        known = await self._records.get_worker(worker_id, version) if WORKER_ID.match(worker_id) else None
        if known is None or not known.seen_by(principal.id):
            raise NoWorker
        return known

    async def _check_template(self, template: str) -> None:
        spec = SandboxSpec(image=template)
        try:
            await self._templates.look(spec)
            self._templates.plan(spec)
        except InvalidInput as error:
            raise InvalidInput(error.message.replace("image", "template", 1), field="template") from None

    def _event(self, action: str, worker: Worker, tenant: str, **detail: object) -> Event:
        return Event(action, worker.id, tenant, actor=tenant, detail=detail, at=self._clock())
