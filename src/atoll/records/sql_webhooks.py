"""Webhooks in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, case, delete, exists, func, insert, literal, or_, select, update

from atoll.domain.errors import QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.webhook import Webhook
from atoll.records.locks import Lock
from atoll.records.schema import event_heads, webhook_cursors, webhooks
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import hold_owner
from atoll.records.sql_store import SqlStore, event_values, lock_owner, not_swapped, put, storable
from atoll.records.webhooks import WebhookRecords

_STATE = ("failures", "failing_since", "next_at", "delivered_at", "last_error")
_ANEW = {"failures": 0, "failing_since": None, "next_at": None, "last_error": None}
_LEASE = ("lease_holder", "leased_until", "leased_at")
_LONGEST = func.coalesce(webhooks.c.leased_at, webhooks.c.created_at)
_FREE = {"lease_holder": None, "leased_until": None}
_PUT_CURSOR = put(webhook_cursors, "seq")
_CONCERNED = or_(webhooks.c.everyone, event_heads.c.tenant == webhooks.c.owner)
_CURSOR = and_(webhook_cursors.c.webhook == webhooks.c.id, webhook_cursors.c.tenant == event_heads.c.tenant)
_BEHIND = event_heads.c.seq > func.coalesce(webhook_cursors.c.seq, 0)


class SqlWebhooks(SqlStore, WebhookRecords):
    """See `WebhookRecords` for what each method does."""

    async def add_webhook(self, webhook: Webhook, event: Event, *, quota: int) -> None:
        row, happened = storable(_row(webhook)), event_values(event)
        heads = select(literal(webhook.id), event_heads.c.tenant, event_heads.c.seq)
        if not webhook.everyone:
            heads = heads.where(event_heads.c.tenant == webhook.owner)

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.WEBHOOKS, webhook.owner)
            hold_owner(connection, webhook.owner)
            own = select(func.count()).select_from(webhooks).where(webhooks.c.owner == webhook.owner)
            have: int = connection.execute(own).scalar_one()
            if have >= quota:
                raise QuotaExceeded(f"webhook limit reached ({have}/{quota})")
            connection.execute(insert(webhooks), row)
            connection.execute(insert(webhook_cursors).from_select(["webhook", "tenant", "seq"], heads))
            append_event(connection, happened)

        await self._commit(add)

    async def swap_webhook(self, webhook: Webhook, event: Event) -> Webhook:
        row, happened = storable(_row(webhook)), event_values(event)
        changed = {name: value for name, value in row.items() if name not in ("id", "created_at", *_STATE)}
        mine = webhooks.c.id == webhook.id

        def change(connection: Connection) -> Webhook:
            before = connection.execute(select(webhooks.c.disabled_at).where(mine)).first()
            anew = _ANEW | _FREE if before is not None and before[0] is not None and webhook.disabled_at is None else {}
            same = mine & (webhooks.c.version == webhook.version)
            values = changed | anew | {"version": webhook.version + 1}
            if connection.execute(update(webhooks).where(same).values(values)).rowcount != 1:
                raise not_swapped(connection, webhooks, "webhook", webhook.id)
            append_event(connection, happened)
            return _of(connection.execute(select(webhooks).where(mine)).mappings().one())

        return await self._commit(change)

    async def delete_webhook(self, webhook: Webhook, event: Event) -> bool:
        happened = event_values(event)

        def forget(connection: Connection) -> bool:
            there = connection.execute(delete(webhooks).where(webhooks.c.id == webhook.id)).rowcount == 1
            if there:
                connection.execute(delete(webhook_cursors).where(webhook_cursors.c.webhook == webhook.id))
                append_event(connection, happened)
            return there

        return await self._commit(forget)

    async def get_webhook(self, webhook_id: str) -> Webhook | None:
        found = await self._all(select(webhooks).where(webhooks.c.id == webhook_id), _of)
        return found[0] if found else None

    async def list_webhooks(self, owners: Collection[str], limit: int = 1000) -> list[Webhook]:
        query = select(webhooks).where(webhooks.c.owner.in_(list(owners)))
        return await self._all(query.order_by(webhooks.c.created_at, webhooks.c.id).limit(limit), _of)

    # deliveries

    async def lease_webhooks(
        self, holder: str, now: datetime, until: datetime, limit: int, *, each: int
    ) -> list[Webhook]:
        due = _due(holder, now, each).limit(limit)
        # Looked at before the writer is asked: most of the time there is nothing.
        if not await self._all(due, _of):
            return []

        def lease(connection: Connection) -> list[Webhook]:
            locked = due.with_for_update(skip_locked=True, of=webhooks)
            found = [_of(row) for row in connection.execute(locked).mappings()]
            held = webhooks.c.id.in_([one.id for one in found])
            lease = {"lease_holder": holder, "leased_until": until, "leased_at": now}
            connection.execute(update(webhooks).where(held).values(lease))
            return found

        return await self._commit(lease, durable=False)

    async def webhook_places(self, webhook: Webhook) -> dict[str, int]:
        query: Any = (
            select(event_heads.c.tenant, func.coalesce(webhook_cursors.c.seq, 0).label("seq"))
            .select_from(event_heads)
            .join(webhooks, _CONCERNED)
            .outerjoin(webhook_cursors, _CURSOR)
            .where(webhooks.c.id == webhook.id, _BEHIND)
            .order_by(event_heads.c.tenant)
        )
        return dict(await self._all(query, lambda row: (row["tenant"], row["seq"])))

    async def move_webhook(
        self, webhook_id: str, holder: str, tenant: str, seq: int, until: datetime, delivered_at: datetime | None
    ) -> bool:
        values: dict[str, Any] = {"leased_until": until}
        if delivered_at is not None:
            values |= _ANEW | {"delivered_at": delivered_at}

        def move(connection: Connection) -> bool:
            if not _noted(connection, webhook_id, holder, values):
                return False
            _PUT_CURSOR.run(connection, {"webhook": webhook_id, "tenant": tenant, "seq": seq})
            return True

        return await self._commit(move, durable=False)

    async def fail_webhook(
        self, webhook_id: str, holder: str, *, failures: int, since: datetime, next_at: datetime, error: str
    ) -> None:
        values = {
            "failures": failures,
            "failing_since": since,
            "next_at": next_at,
            "last_error": error,
            **_FREE,
        }
        await self._commit(lambda connection: _noted(connection, webhook_id, holder, values), durable=False)

    async def release_webhook(self, webhook_id: str, holder: str) -> None:
        await self._commit(lambda connection: _noted(connection, webhook_id, holder, _FREE), durable=False)


def _due(holder: str, now: datetime, each: int) -> Select[Any]:
    behind = (
        select(event_heads.c.tenant)
        .select_from(event_heads)
        .outerjoin(webhook_cursors, _CURSOR)
        .where(_CONCERNED, _BEHIND)
        .correlate(webhooks)
    )
    free = and_(
        webhooks.c.disabled_at.is_(None),
        or_(webhooks.c.next_at.is_(None), webhooks.c.next_at <= now),
        or_(webhooks.c.leased_until.is_(None), webhooks.c.leased_until < now),
    )
    held = and_(webhooks.c.lease_holder == holder, webhooks.c.leased_until >= now)
    first = case((held, 0), else_=1), _LONGEST, webhooks.c.id
    place = func.row_number().over(partition_by=webhooks.c.maker, order_by=first)
    places = select(webhooks.c.id, place.label("place")).where(or_(held, free & exists(behind))).subquery()
    return (
        select(webhooks)
        .join(places, places.c.id == webhooks.c.id)
        # `free` once more: it is looked at again when the row is locked
        .where(free, places.c.place <= each)
        .order_by(places.c.place, _LONGEST, webhooks.c.id)
    )


def _noted(connection: Connection, webhook_id: str, holder: str, values: Mapping[str, Any]) -> bool:
    held = (webhooks.c.id == webhook_id) & (webhooks.c.lease_holder == holder) & webhooks.c.disabled_at.is_(None)
    return connection.execute(update(webhooks).where(held).values(dict(values))).rowcount == 1


def _row(webhook: Webhook) -> dict[str, Any]:
    names = set(webhooks.c.keys()) - {"actions", *_LEASE}
    return {name: getattr(webhook, name) for name in names} | {"actions": " ".join(webhook.actions)}


def _of(row: Mapping[Any, Any]) -> Webhook:
    plain = {name: value for name, value in row.items() if name not in ("actions", *_LEASE)}
    return Webhook(actions=tuple(row["actions"].split()), **plain)
