"""Access keys in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.access_key import AccessKey
from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.records.access_keys import AccessKeyRecords
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.rows import Row
from atoll.records.schema import access_keys, api_keys
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import SqlStore, event_values, lock_owner, storable

_FIELDS = ("id", "key", "key_hash", "owner", "created_at", "vault", "secret")
_ADD = Prepared(insert(access_keys).inline())
_GET = Prepared(select(access_keys).where(access_keys.c.id == bindparam("wanted")))
_DELETE = Prepared(delete(access_keys).where(access_keys.c.id == bindparam("of")))


class SqlAccessKeys(SqlStore, AccessKeyRecords):
    """See `AccessKeyRecords` for what each method does."""

    async def add_access_key(self, access: AccessKey, event: Event, *, quota: int) -> None:
        row = storable({name: getattr(access, name) for name in _FIELDS})
        happened = event_values(event)
        its_key = select(api_keys.c.id).where(api_keys.c.id == access.key).with_for_update()
        count = select(func.count()).select_from(access_keys).where(access_keys.c.key == access.key)

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.ACCESS_KEYS, access.key)
            if connection.execute(its_key).first() is None:
                raise NotFound(f"key {access.key} does not exist")
            kept: int = connection.execute(count).scalar_one()
            if kept >= quota:
                raise QuotaExceeded(f"access key limit reached ({kept}/{quota})")
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"an access key {access.id} exists already") from error
            append_event(connection, happened)

        await self._commit(add)

    async def get_access_key(self, access_id: str) -> AccessKey | None:
        return await self._one(_GET, _of, wanted=access_id)

    async def list_access_keys(self, *, key: str | None = None, owner: str | None = None) -> list[AccessKey]:
        query = select(access_keys).order_by(access_keys.c.created_at, access_keys.c.id)
        if key is not None:
            query = query.where(access_keys.c.key == key)
        if owner is not None:
            query = query.where(access_keys.c.owner == owner)
        return await self._all(query, _of)

    async def delete_access_key(self, access_id: str, event: Event) -> None:
        happened = event_values(event)

        def remove(connection: Connection) -> None:
            if _DELETE.run(connection, {"of": access_id}) != 1:
                raise NotFound(f"access key {access_id} does not exist")
            append_event(connection, happened)

        await self._commit(remove)


def _of(row: Row) -> AccessKey:
    return AccessKey(**row)
