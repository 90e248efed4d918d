"""Keys that other keys made, in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.records.child_keys import ChildKeyRecords
from atoll.records.prepared import Prepared
from atoll.records.rows import key_of, key_row
from atoll.records.schema import api_keys
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import SqlStore, event_values, storable

_ADD = Prepared(insert(api_keys).inline())
_HOLD = Prepared(select(api_keys).where(api_keys.c.id == bindparam("wanted")).with_for_update())


class SqlChildKeys(SqlStore, ChildKeyRecords):
    """See `ChildKeyRecords` for what each method does."""

    async def add_child_key(self, key: ApiKey, event: Event, *, siblings_max: int) -> None:
        row, happened = storable(key_row(key)), event_values(event)
        of = api_keys.c.parent == key.parent
        usable = api_keys.c.revoked_at.is_(None) & (
            api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > key.created_at)
        )

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
            append_event(connection, happened)

        await self._commit(add)

    async def list_child_keys(self, parent: str) -> list[ApiKey]:
        query = select(api_keys).where(api_keys.c.parent == parent)
        return await self._all(query.order_by(api_keys.c.created_at, api_keys.c.id), key_of)


def check_child(key: ApiKey, siblings: int, siblings_max: int, budget: int | None, given: int) -> None:
    """QuotaExceeded when a parent with that budget, of which so much is given away, cannot have one more."""
    if siblings >= siblings_max:
        raise QuotaExceeded(f"this credential has its maximum of keys that it made ({siblings}/{siblings_max})")
    if budget is not None and (key.budget_micro_usd is None or given + key.budget_micro_usd > budget):
        raise QuotaExceeded(f"budget_micro_usd must be at most {max(0, budget - given)}: what is left to give away")
