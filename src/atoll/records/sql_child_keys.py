"""How keys are added, those of an owner and those that other keys made, in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.key_bounds import check_child, check_own
from atoll.domain.quota import Overrides, QuotaChange
from atoll.domain.quota_rules import with_quotas
from atoll.records.child_keys import ChildKeyRecords
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.rows import key_of, key_row
from atoll.records.schema import api_keys
from atoll.records.sql_chain import append_event
from atoll.records.sql_quotas import change_overrides
from atoll.records.sql_store import SqlStore, event_values, lock_owner, storable

_ADD = Prepared(insert(api_keys).inline())
_HOLD = Prepared(select(api_keys).where(api_keys.c.id == bindparam("wanted")).with_for_update())


class SqlChildKeys(SqlStore, ChildKeyRecords):
    """See `ChildKeyRecords`, and `Records`, for what each method does."""

    async def add_key(
        self, key: ApiKey, event: Event, *, most: int | None = None, quotas: Overrides | None = None
    ) -> None:
        row = storable(key_row(key))
        own = (api_keys.c.owner == key.owner) & api_keys.c.parent.is_(None) & _usable(key.created_at)

        def add(connection: Connection) -> None:
            if most is not None:
                lock_owner(connection, Lock.KEYS, key.owner)
                check_own(connection.execute(select(func.count()).select_from(api_keys).where(own)).scalar_one(), most)
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"key {key.id} exists already") from error
            append_event(connection, event_values(_bounded(connection, key, event, quotas)))

        await self._commit(add)

    async def add_child_key(
        self, key: ApiKey, event: Event, *, siblings_max: int, quotas: Overrides | None = None
    ) -> None:
        row = storable(key_row(key))
        of = api_keys.c.parent == key.parent
        usable = _usable(key.created_at)

        def add(connection: Connection) -> None:
            parent = _HOLD.first(connection, {"wanted": key.parent})
            if parent is None or parent["revoked_at"] is not None:
                raise Conflict(f"key {key.parent} has ended")
            siblings = connection.execute(select(func.count()).select_from(api_keys).where(of, usable)).scalar_one()
            given = connection.execute(select(func.sum(api_keys.c.budget_micro_usd)).where(of)).scalar_one()
            check_child(key, siblings, siblings_max, parent["budget_micro_usd"], int(given or 0))
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"key {key.id} exists already") from error
            append_event(connection, event_values(_bounded(connection, key, event, quotas)))

        await self._commit(add)

    async def list_child_keys(self, parent: str) -> list[ApiKey]:
        query = select(api_keys).where(api_keys.c.parent == parent)
        return await self._all(query.order_by(api_keys.c.created_at, api_keys.c.id), key_of)


def end_children(connection: Connection, parent: str, event: Event) -> list[Event]:
    """Revoke what it made itself; what those made ends with them. The events that tell of it are for the caller to
    append."""
    theirs = (api_keys.c.parent == parent) & api_keys.c.revoked_at.is_(None)
    found = connection.execute(select(api_keys.c.id).where(theirs).order_by(api_keys.c.id)).scalars().all()
    connection.execute(update(api_keys).where(theirs).values(revoked_at=event.at, version=api_keys.c.version + 1))
    return [replace(event, target=child) for child in found]


def _usable(moment: datetime) -> ColumnElement[bool]:
    return api_keys.c.revoked_at.is_(None) & (api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > moment))


def _bounded(connection: Connection, key: ApiKey, event: Event, quotas: Overrides | None) -> Event:
    """The event that tells of the quotas with which a key was added, after they are set."""
    return with_quotas(event, change_overrides(connection, QuotaChange(key.id, quotas))) if quotas else event
