"""Keys that a vault has wrapped, in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Column, Connection, Table, func, select, update

from atoll.domain.errors import StaleVersion
from atoll.domain.wrapped_key import Wrapped, WrappedKey
from atoll.records.schema import access_keys, audit_keys, lineages, secrets, signing_keys, webhooks
from atoll.records.sql_store import SqlStore
from atoll.records.wrapped_keys import WrappedKeyRecords

_PLACES: dict[Wrapped, tuple[Table, Column[bytes]]] = {
    Wrapped.LINEAGE: (lineages, lineages.c.key),
    Wrapped.SECRET: (secrets, secrets.c.key),
    Wrapped.SIGNING_KEY: (signing_keys, signing_keys.c.wrapped),
    Wrapped.AUDIT_KEY: (audit_keys, audit_keys.c.key),
    Wrapped.WEBHOOK: (webhooks, webhooks.c.secret),
    Wrapped.ACCESS_KEY: (access_keys, access_keys.c.secret),
}


class SqlWrappedKeys(SqlStore, WrappedKeyRecords):
    """See `WrappedKeyRecords` for what each method does."""

    async def count_wrapped_keys(self) -> Mapping[str, int]:
        def read(connection: Connection) -> dict[str, int]:
            counts: dict[str, int] = {}
            for table, key in _PLACES.values():
                query = select(table.c.vault, func.count()).where(key.is_not(None)).group_by(table.c.vault)
                for vault, count in connection.execute(query):
                    counts[vault] = counts.get(vault, 0) + count
            return counts

        return await self._database.read(read)

    async def list_wrapped_keys(self) -> list[WrappedKey]:
        def read(connection: Connection) -> list[WrappedKey]:
            found: list[WrappedKey] = []
            for kind, (table, key) in _PLACES.items():
                query = select(table.c.id, table.c.vault, key).where(key.is_not(None)).order_by(table.c.id)
                found += [WrappedKey(kind, *row) for row in connection.execute(query)]
            return found

        return await self._database.read(read)

    async def swap_wrapped_key(self, stored: WrappedKey, key: bytes, vault: str) -> None:
        table, column = _PLACES[stored.kind]
        statement = (
            update(table)
            .where(table.c.id == stored.id, column == stored.key, table.c.vault == stored.vault)
            .values({column.name: key, "vault": vault})
        )

        def swap(connection: Connection) -> None:
            if connection.execute(statement).rowcount != 1:
                raise StaleVersion(f"the key of {stored.id} changed since it was read")

        await self._commit(swap)
