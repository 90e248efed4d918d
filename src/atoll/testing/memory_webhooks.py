"""The webhooks' part of MemoryRecords, in dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from atoll.domain.errors import NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.webhook import Webhook
from atoll.records.webhooks import WebhookRecords
from atoll.testing.memory_events import MemoryEvents


class MemoryWebhooks(MemoryEvents, WebhookRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._webhooks: dict[str, Webhook] = {}
        self._cursors: dict[tuple[str, str], int] = {}
        self._leases: dict[str, tuple[str, datetime]] = {}
        self._leased_at: dict[str, datetime] = {}

    async def add_webhook(self, webhook: Webhook, event: Event, *, quota: int) -> None:
        self._check()
        whole: Any = self
        whole._hold_owner(webhook.owner)
        have = sum(one.owner == webhook.owner for one in self._webhooks.values())
        if have >= quota:
            raise QuotaExceeded(f"webhook limit reached ({have}/{quota})")
        self._webhooks[webhook.id] = webhook
        for tenant, head in self._heads.items():
            if webhook.everyone or tenant == webhook.owner:
                self._cursors[webhook.id, tenant] = head.seq
        self._log(event)

    async def swap_webhook(self, webhook: Webhook, event: Event) -> Webhook:
        self._check()
        stored = self._webhooks.get(webhook.id)
        if stored is None:
            raise NotFound(f"webhook {webhook.id} does not exist")
        if stored.version != webhook.version:
            raise StaleVersion(f"webhook {webhook.id} changed since it was read")
        anew = stored.disabled_at is not None and webhook.disabled_at is None
        if anew:
            self._leases.pop(webhook.id, None)
        after = self._webhooks[webhook.id] = replace(
            webhook,
            version=webhook.version + 1,
            failures=0 if anew else stored.failures,
            failing_since=None if anew else stored.failing_since,
            next_at=None if anew else stored.next_at,
            last_error=None if anew else stored.last_error,
            delivered_at=stored.delivered_at,
        )
        self._log(event)
        return after

    async def delete_webhook(self, webhook: Webhook, event: Event) -> bool:
        self._check()
        there = self._webhooks.pop(webhook.id, None) is not None
        if there:
            self._cursors = {place: seq for place, seq in self._cursors.items() if place[0] != webhook.id}
            self._log(event)
        return there

    async def get_webhook(self, webhook_id: str) -> Webhook | None:
        self._check()
        return self._webhooks.get(webhook_id)

    async def list_webhooks(self, owners: Collection[str], limit: int = 1000) -> list[Webhook]:
        self._check()
        found = [one for one in self._webhooks.values() if one.owner in owners]
        return sorted(found, key=lambda one: (one.created_at, one.id))[:limit]

    # deliveries

    async def lease_webhooks(
        self, holder: str, now: datetime, until: datetime, limit: int, *, each: int
    ) -> list[Webhook]:
        self._check()
        waiting = [
            one
            for one in self._webhooks.values()
            if one.disabled_at is None
            and (one.next_at is None or one.next_at <= now)
            and (one.id not in self._leases or self._leases[one.id][1] < now)
            and self._places(one)
        ]
        waiting.sort(key=self._longest)
        held = {of for of, (who, end) in self._leases.items() if who == holder and end >= now}
        taken = Counter(one.maker for one in self._webhooks.values() if one.id in held)
        places: list[tuple[int, Webhook]] = []
        for one in waiting:
            taken[one.maker] += 1
            places.append((taken[one.maker], one))
        places.sort(key=lambda place: (place[0], self._longest(place[1])))
        due = [one for place, one in places if place <= each][:limit]
        self._leases |= {one.id: (holder, until) for one in due}
        self._leased_at |= {one.id: now for one in due}
        return due

    def _longest(self, one: Webhook) -> tuple[datetime, str]:
        return self._leased_at.get(one.id, one.created_at), one.id

    async def webhook_places(self, webhook: Webhook) -> dict[str, int]:
        self._check()
        return self._places(webhook)

    async def move_webhook(
        self, webhook_id: str, holder: str, tenant: str, seq: int, until: datetime, delivered_at: datetime | None
    ) -> bool:
        self._check()
        if not self._holds(webhook_id, holder):
            return False
        self._leases[webhook_id] = holder, until
        self._cursors[webhook_id, tenant] = seq
        if delivered_at is not None:
            self._webhooks[webhook_id] = replace(
                self._webhooks[webhook_id],
                failures=0,
                failing_since=None,
                next_at=None,
                last_error=None,
                delivered_at=delivered_at,
            )
        return True

    async def fail_webhook(
        self, webhook_id: str, holder: str, *, failures: int, since: datetime, next_at: datetime, error: str
    ) -> None:
        self._check()
        if self._holds(webhook_id, holder):
            del self._leases[webhook_id]
            self._webhooks[webhook_id] = replace(
                self._webhooks[webhook_id], failures=failures, failing_since=since, next_at=next_at, last_error=error
            )

    async def release_webhook(self, webhook_id: str, holder: str) -> None:
        self._check()
        if self._holds(webhook_id, holder):
            del self._leases[webhook_id]

    def _holds(self, webhook_id: str, holder: str) -> bool:
        stored = self._webhooks.get(webhook_id)
        lease = self._leases.get(webhook_id)
        return stored is not None and stored.disabled_at is None and lease is not None and lease[0] == holder

    def _places(self, webhook: Webhook) -> dict[str, int]:
        return {
            tenant: self._cursors.get((webhook.id, tenant), 0)
            for tenant, head in sorted(self._heads.items())
            if (webhook.everyone or tenant == webhook.owner) and head.seq > self._cursors.get((webhook.id, tenant), 0)
        }
