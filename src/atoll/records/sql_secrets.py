"""Secrets in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.secret import Secret
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.schema import secrets
from atoll.records.secret_rows import secret_of, secret_row
from atoll.records.secrets import SecretRecords
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import hold_owner
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    lock_owner,
    not_swapped,
    storable,
    swap,
)

_ADD = Prepared(insert(secrets).inline())
_SWAP = swap(secrets, {"owner", "name", "created_at"})
_GET = Prepared(select(secrets).where(secrets.c.id == bindparam("wanted")))
_FIND = Prepared(select(secrets).where(secrets.c.owner == bindparam("of"), secrets.c.name == bindparam("wanted")))
_COUNT = Prepared(select(func.count().label("kept")).select_from(secrets).where(secrets.c.owner == bindparam("of")))
_DELETE = Prepared(delete(secrets).where(secrets.c.id == bindparam("of"), secrets.c.version == bindparam("read")))


class SqlSecrets(SqlStore, SecretRecords):
    """See `SecretRecords` for what each method does."""

    async def add_secret(self, secret: Secret, event: Event, *, quota: int | None = None) -> None:
        row, happened = storable(secret_row(secret)), event_values(event)

        def add(connection: Connection) -> None:
            hold_owner(connection, secret.owner)
            if quota is not None:
                lock_owner(connection, Lock.SECRETS, secret.owner)
                kept = (_COUNT.first(connection, {"of": secret.owner}) or {"kept": 0})["kept"]
                if kept >= quota:
                    raise QuotaExceeded(f"secret limit reached ({kept}/{quota})")
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"a secret {secret.name} exists already") from error
            append_event(connection, happened)

        await self._commit(add)

    async def swap_secret(self, secret: Secret, event: Event | None) -> Secret:
        after = replace(secret, version=secret.version + 1)
        await self._swap(_SWAP, secrets, "secret", secret_row(after), event)
        return after

    async def get_secret(self, secret_id: str) -> Secret | None:
        return await self._one(_GET, secret_of, wanted=secret_id)

    async def find_secret(self, owner: str, name: str) -> Secret | None:
        return await self._one(_FIND, secret_of, of=owner, wanted=name)

    async def list_secrets(
        self,
        *,
        owners: Collection[str] | None = None,
        within: Collection[str] | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> list[Secret]:
        query = select(secrets).order_by(secrets.c.name, secrets.c.id).limit(limit)
        if owners is not None:
            query = query.where(secrets.c.owner.in_(list(owners)))
        if within is not None:
            query = query.where(secrets.c.id.in_(list(within)) | secrets.c.owner.in_(list(within)))
        if after is not None:
            query = query.where(tuple_(secrets.c.name, secrets.c.id) > after)
        return await self._all(query, secret_of)

    async def delete_secret(self, secret: Secret, event: Event) -> None:
        happened = event_values(event)

        def remove(connection: Connection) -> None:
            if _DELETE.run(connection, {"of": secret.id, "read": secret.version}) != 1:
                raise not_swapped(connection, secrets, "secret", secret.id)
            append_event(connection, happened)

        await self._commit(remove)
