"""The part of the records contract about webhooks; `Records` includes it.

Who delivers holds a lease: of several servers one does. What it notes is refused once the lease is another's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.webhook import Webhook


class WebhookRecords(ABC):
    """See `Records` for what holds of all."""

    @abstractmethod
    async def add_webhook(self, webhook: Webhook, event: Event, *, quota: int) -> None:
        """Insert; it will be told of what happens from now on, `event` first. QuotaExceeded when its owner has
        `quota` of them; NotFound when its owner is a group or a user who is gone."""

    @abstractmethod
    async def swap_webhook(self, webhook: Webhook, event: Event) -> Webhook:
        """As `swap_sandbox`. How deliveries went stays as stored, unless it is enabled again: it begins anew then."""

    @abstractmethod
    async def delete_webhook(self, webhook: Webhook, event: Event) -> bool:
        """Whether it was there."""

    @abstractmethod
    async def get_webhook(self, webhook_id: str) -> Webhook | None: ...

    @abstractmethod
    async def list_webhooks(self, owners: Collection[str], limit: int = 1000) -> list[Webhook]:
        """Oldest first."""

    # deliveries

    @abstractmethod
    async def lease_webhooks(
        self, holder: str, now: datetime, until: datetime, limit: int, *, each: int
    ) -> list[Webhook]:
        """Those that have something to be told and that nobody holds, held by `holder` until then: of each maker's as
        many as make `each` with those that it holds, makers in turn, whoever has waited longest first."""

    @abstractmethod
    async def webhook_places(self, webhook: Webhook) -> dict[str, int]:
        """The tenants with events that it was not told of, each with the number of the last one that it was."""

    @abstractmethod
    async def move_webhook(
        self, webhook_id: str, holder: str, tenant: str, seq: int, until: datetime, delivered_at: datetime | None
    ) -> bool:
        """It was told of a tenant's events up to that number, or did not want them (`delivered_at` None). The lease
        goes on until then. False when the lease is not `holder`'s any more."""

    @abstractmethod
    async def fail_webhook(
        self, webhook_id: str, holder: str, *, failures: int, since: datetime, next_at: datetime, error: str
    ) -> None:
        """A call failed: none before `next_at`; the lease ends."""

    @abstractmethod
    async def release_webhook(self, webhook_id: str, holder: str) -> None:
        """The lease ends."""
