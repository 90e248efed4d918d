"""Lineages, and where their chunks lie, in SQL: a part of `SqlRecords`.

Clean-ups of many chunks are cut into transactions of a few, so that nobody waits long behind one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.domain.workspace import Lineage, Pack, StoredChunk
from atoll.records.owners import charge, stored_by
from atoll.records.prepared import Prepared
from atoll.records.schema import chunks, lineages, owners, packs, revisions, snapshots, workspaces
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import SqlStore, event_values, pieces, put, storable
from atoll.records.sql_workspaces import ADD_LINEAGE, hold_lineage
from atoll.records.workspace_rows import chunk_rows, lineage_of, lineage_row, pack_of, pack_row
from atoll.records.workspaces import WorkspaceRecords

PACKS_AT_ONCE = 8  # forgotten in one transaction, with some thousand chunks each

_GET_LINEAGE = Prepared(select(lineages).where(lineages.c.id == bindparam("wanted")))
_HOLD_LINEAGE_ALONE = Prepared(select(lineages).where(lineages.c.id == bindparam("wanted")).with_for_update())
_SWAP_KEY = Prepared(
    update(lineages)
    .where(lineages.c.id == bindparam("of"), lineages.c.key == bindparam("old_key"))
    .values(key=bindparam("new_key"), vault=bindparam("new_vault"))
)
_ADD_PACK = Prepared(insert(packs).inline())
_PUT_PACK = put(packs)
_ADD_CHUNK = put(chunks)
_PUT_CHUNK = put(chunks, "pack", "offset", "stored_bytes", "bytes")
_PLACES = select(chunks.c.id, chunks.c.pack, chunks.c.offset, chunks.c.stored_bytes, chunks.c.bytes)

# One look into the index for each id. For an IN list the planner, while it knows little of a growing table, compares
# each chunk of the lineage with each id.
_FIND_ON_POSTGRES = text(
    "SELECT place.* FROM unnest(CAST(:ids AS bytea[])) AS wanted (id) CROSS JOIN LATERAL ("
    'SELECT id, pack, "offset", stored_bytes, bytes FROM chunks WHERE lineage = :lineage AND id = wanted.id OFFSET 0'
    ") AS place"
)
# SQLAlchemy's own IN list costs ten times what SQLite does with it.
_FIND_ON_SQLITE = 'SELECT id, pack, "offset", stored_bytes, bytes FROM chunks WHERE lineage = ? AND id IN ({})'
_FORGET_ON_POSTGRES = text(
    "DELETE FROM chunks USING unnest(CAST(:ids AS bytea[])) AS wanted (id)"
    " WHERE chunks.lineage = :lineage AND chunks.id = wanted.id AND chunks.pack = ANY(CAST(:packs AS varchar[]))"
)


class SqlChunks(SqlStore, WorkspaceRecords):
    """See `WorkspaceRecords` for what each method does."""

    async def get_lineage(self, lineage_id: str) -> Lineage | None:
        return await self._one(_GET_LINEAGE, lineage_of, wanted=lineage_id)

    async def list_lineages(self) -> list[Lineage]:
        return await self._all(select(lineages).order_by(lineages.c.created_at, lineages.c.id), lineage_of)

    async def add_lineage(self, lineage: Lineage) -> None:
        row = storable(lineage_row(lineage))

        def add(connection: Connection) -> None:
            try:
                ADD_LINEAGE.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"lineage {lineage.id} exists already") from error

        await self._commit(add)

    async def swap_lineage_key(self, lineage_id: str, old: bytes, new: bytes | None, vault: str, event: Event) -> None:
        happened = event_values(event)

        def change(connection: Connection) -> None:
            values = {"of": lineage_id, "old_key": old, "new_key": new, "new_vault": vault}
            if _SWAP_KEY.run(connection, values) != 1:
                if _GET_LINEAGE.first(connection, {"wanted": lineage_id}) is None:
                    raise NotFound(f"lineage {lineage_id} does not exist")
                raise StaleVersion(f"the key of lineage {lineage_id} changed since it was read")
            append_event(connection, happened)

        await self._commit(change)

    async def delete_lineage(self, lineage_id: str) -> None:
        def shred(connection: Connection) -> None:
            # Alone with it: from here on nothing that needs its key can be added.
            if _HOLD_LINEAGE_ALONE.first(connection, {"wanted": lineage_id}) is None:
                return
            for table in (workspaces, revisions, snapshots):
                users = select(table.c.id).where(table.c.lineage == lineage_id).limit(1)
                if connection.execute(users).first() is not None:
                    raise Conflict(f"lineage {lineage_id} is in use by {table.name}")
            connection.execute(update(lineages).where(lineages.c.id == lineage_id).values(key=None))

        def forget(connection: Connection) -> None:
            connection.execute(delete(lineages).where(lineages.c.id == lineage_id))

        await self._commit(shred)
        while held := await self.list_packs(lineage_id):
            await self.delete_packs([pack.id for pack in held])
        await self._commit(forget)

    # packs and chunks

    async def add_pack(self, pack: Pack, chunks: Sequence[StoredChunk], *, quota: int | None = None) -> None:
        row, places = storable(pack_row(pack)), list(chunk_rows(pack, chunks))

        def add(connection: Connection) -> None:
            owner = hold_lineage(connection, pack.lineage)
            try:
                _ADD_PACK.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"pack {pack.id} exists already") from error
            _ADD_CHUNK.run_many(connection, places)
            charge(connection, {owner: pack.bytes}, quota)

        # Not synced: the revision that will refer to it is, and takes everything before it along.
        await self._commit(add, durable=False)

    async def stored_bytes(self, owner: str) -> int:
        return await self._database.read(lambda connection: stored_by(connection, owner))

    async def list_stored(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        some = select(owners).where(owners.c.id > after, owners.c.stored_bytes > 0).order_by(owners.c.id).limit(limit)
        return await self._all(some, lambda row: (row["id"], row["stored_bytes"]))

    async def find_chunks(self, lineage: str, ids: Collection[bytes]) -> dict[bytes, StoredChunk]:
        wanted = sorted(ids)

        def read(connection: Connection) -> dict[bytes, StoredChunk]:
            return {chunk.id: chunk for chunk in _found(connection, lineage, wanted)}

        return await self._database.read(read)

    async def list_chunks(self, lineage: str, *, after: bytes = b"", limit: int = 10_000) -> list[StoredChunk]:
        query = _PLACES.where(chunks.c.lineage == lineage, chunks.c.id > after).order_by(chunks.c.id).limit(limit)
        return await self._database.read(lambda connection: _places(connection, query))

    async def list_packs(self, lineage: str | None = None, *, after: str = "", limit: int = 10_000) -> list[Pack]:
        query = select(packs).where(packs.c.id > after).order_by(packs.c.id).limit(limit)
        if lineage is not None:
            query = query.where(packs.c.lineage == lineage)
        return await self._all(query, pack_of)

    async def move_chunks(self, pack: Pack, chunks: Sequence[StoredChunk], removed: Collection[str]) -> None:
        row, places = storable(pack_row(pack)), list(chunk_rows(pack, chunks))

        def move(connection: Connection) -> None:
            owner = hold_lineage(connection, pack.lineage)
            added = Counter({owner: pack.bytes if _PUT_PACK.run(connection, row) == 1 else 0})
            _PUT_CHUNK.run_many(connection, places)
            for some in pieces(sorted(removed)):
                added.subtract(_forget_packs(connection, some)[1])
            charge(connection, added)

        await self._commit(move)

    async def refresh_packs(self, pack_ids: Collection[str], at: datetime) -> None:
        def refresh(connection: Connection) -> None:
            for some in pieces(sorted(pack_ids)):
                older = packs.c.id.in_(some), packs.c.created_at < at
                connection.execute(update(packs).where(*older).values(created_at=at))

        await self._commit(refresh, durable=False)

    async def delete_chunks(self, lineage: str, ids: Collection[bytes], stored_before: datetime) -> int:
        gone = 0
        for some in pieces(sorted(ids)):
            gone += await self._commit(
                lambda connection, some=some: _forget_chunks(connection, lineage, some, stored_before)
            )
        return gone

    async def delete_packs(self, pack_ids: Collection[str]) -> int:
        gone = 0
        for some in pieces(sorted(pack_ids), PACKS_AT_ONCE):
            gone += await self._commit(lambda connection, some=some: _delete_packs(connection, some))
        return gone


def _found(connection: Connection, lineage: str, ids: Sequence[bytes]) -> Iterator[StoredChunk]:
    if connection.dialect.name == "postgresql":
        found = connection.execute(_FIND_ON_POSTGRES, {"lineage": lineage, "ids": ids})
        yield from (StoredChunk(*row) for row in found)
        return
    for some in pieces(ids):
        statement = _FIND_ON_SQLITE.format(",".join("?" * len(some)))
        yield from (StoredChunk(*row) for row in connection.exec_driver_sql(statement, (lineage, *some)))


def _forget_chunks(connection: Connection, lineage: str, ids: Sequence[bytes], stored_before: datetime) -> int:
    mine = {chunk.pack for chunk in _found(connection, lineage, ids)}
    # Held: whoever is refreshing one of them was here before, and it is no longer old, or waits.
    query = select(packs.c.id).where(packs.c.id.in_(sorted(mine)), packs.c.created_at < stored_before)
    old = list(connection.execute(query.order_by(packs.c.id).with_for_update()).scalars())
    if not old:
        return 0
    if connection.dialect.name == "postgresql":
        return connection.execute(_FORGET_ON_POSTGRES, {"lineage": lineage, "ids": ids, "packs": old}).rowcount
    these = chunks.c.lineage == lineage, chunks.c.id.in_(ids), chunks.c.pack.in_(old)
    return connection.execute(delete(chunks).where(*these)).rowcount


def _delete_packs(connection: Connection, pack_ids: Sequence[str]) -> int:
    gone, freed = _forget_packs(connection, pack_ids)
    charge(connection, {owner: -size for owner, size in freed.items()})
    return gone


def _forget_packs(connection: Connection, pack_ids: Sequence[str]) -> tuple[int, Counter[str]]:
    """How many went, and how many bytes of each owner."""
    # Held: what another process is deleting too is counted by one of us.
    held = select(packs.c.lineage, packs.c.bytes).where(packs.c.id.in_(pack_ids)).order_by(packs.c.id)
    sizes: Counter[str] = Counter()
    for lineage, size in connection.execute(held.with_for_update()):
        sizes[lineage] += size
    connection.execute(delete(chunks).where(chunks.c.pack.in_(pack_ids)))
    gone = connection.execute(delete(packs).where(packs.c.id.in_(pack_ids))).rowcount
    freed: Counter[str] = Counter()
    for lineage, owner in connection.execute(select(lineages.c.id, lineages.c.owner).where(lineages.c.id.in_(sizes))):
        freed[owner] += sizes[lineage]
    return gone, freed


def _places(connection: Connection, query: Select[Any, Any, Any, Any, Any]) -> list[StoredChunk]:
    return [StoredChunk(*row) for row in connection.execute(query)]
