"""Events and checkpoints in SQL: a part of `SqlRecords`; `sql_chain.py` is what appends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.exc import IntegrityError

from atoll.domain.checkpoint import AuditKey, Checkpoint, Head
from atoll.domain.errors import Conflict
from atoll.domain.event import Event, EventQuery
from atoll.domain.event_chain import Link, moment_text
from atoll.records.audit import AuditRecords
from atoll.records.rows import event_of
from atoll.records.schema import audit_keys, checkpoint_heads, checkpoints, event_heads, events
from atoll.records.sql_chain import append_event, append_events
from atoll.records.sql_store import SqlStore, event_values, pieces, storable

# On PostgreSQL an id is given before its commit, which may come after those of later ids.
OVERTAKEN_S = 10.0
_HEADS = select(event_heads).order_by(event_heads.c.tenant)
_LINK = (
    "tenant", "seq", "id", "at", "action", "target", "actor", "credential", "outcome", "request_id", "address",
    "detail", "previous", "hash",
)  # fmt: skip
_LINKS = (
    select(*(events.c[name] for name in _LINK), checkpoint_heads.c.hash, event_heads.c.seq, event_heads.c.hash)
    .select_from(events)
    .outerjoin(event_heads, event_heads.c.tenant == events.c.tenant)
    .outerjoin(
        checkpoint_heads,
        (checkpoint_heads.c.tenant == events.c.tenant) & (checkpoint_heads.c.seq == events.c.seq),
    )
    .order_by(events.c.tenant, events.c.seq)
)


class SqlAudit(SqlStore, AuditRecords):
    """See `AuditRecords` for what each method does."""

    async def add_events(self, events: Sequence[Event]) -> None:
        rows = [event_values(event) for event in events]
        if rows:
            await self._commit(lambda connection: append_events(connection, rows), durable=False)

    async def list_events(
        self, *, tenant: str | None = None, target: str | None = None, after_id: int = 0, limit: int = 1000
    ) -> list[Event]:
        query = select(events).where(events.c.id > after_id).order_by(events.c.id).limit(limit)
        if tenant is not None:
            query = query.where(events.c.tenant == tenant)
        if target is not None:
            query = query.where(events.c.target == target)
        return await self._all(query, event_of)

    async def find_events(self, query: EventQuery) -> list[Event]:
        order = events.c.id.desc() if query.newest_first else events.c.id
        return await self._all(select(events).where(*_wanted(query)).order_by(order).limit(query.limit), event_of)

    async def follow_events(self, tenant: str, after_seq: int, limit: int) -> list[Event]:
        behind = select(events).where(events.c.tenant == tenant, events.c.seq > after_seq)
        return await self._all(behind.order_by(events.c.seq).limit(limit), event_of)

    async def list_heads(self, tenants: Collection[str] | None = None) -> list[Head]:
        if tenants is None:
            return await self._all(_HEADS, _head_of)
        found: list[Head] = []
        for some in pieces(sorted(tenants)):
            found += await self._all(_HEADS.where(event_heads.c.tenant.in_(some)), _head_of)
        return found

    async def positions(self, after_id: int, tenants: Collection[str] | None = None) -> dict[str, int]:
        def look(connection: Connection) -> dict[str, int]:
            known = select(events.c.tenant, func.max(events.c.seq)).where(events.c.id <= after_id)
            if tenants is not None:
                known = known.where(events.c.tenant.in_(list(tenants)))
            last = connection.execute(select(events.c.tenant, events.c.at).where(events.c.id == after_id)).first()
            if connection.dialect.name == "postgresql" and last is not None:
                settled = last.at - timedelta(seconds=OVERTAKEN_S)
                known = known.where((events.c.tenant == last.tenant) | (events.c.at < settled))
            return dict(map(tuple, connection.execute(known.group_by(events.c.tenant))))

        return await self._database.read(look)

    # verification

    async def read_links(self, after: tuple[str, int] | None, limit: int, tenant: str | None = None) -> list[Link]:
        def read(connection: Connection) -> list[Link]:
            return _links(connection, after, limit, tenant)

        return await self._database.read(read)

    async def missing_events(self, tenant: str | None = None, limit: int = 100) -> list[Head]:
        said = union(
            select(checkpoint_heads.c.tenant, checkpoint_heads.c.seq, checkpoint_heads.c.hash),
            select(event_heads.c.tenant, event_heads.c.seq, event_heads.c.hash),
        ).subquery()
        there = select(events.c.id).where(events.c.tenant == said.c.tenant, events.c.seq == said.c.seq)
        query = select(said).where(~there.exists()).order_by(said.c.tenant, said.c.seq).limit(limit)
        if tenant is not None:
            query = query.where(said.c.tenant == tenant)
        return await self._all(query, _head_of)

    # checkpoints

    async def unsigned_heads(self) -> tuple[Checkpoint | None, list[Head]]:
        def look(connection: Connection) -> tuple[Checkpoint | None, list[Head]]:
            last = connection.execute(select(checkpoints).order_by(checkpoints.c.number.desc()).limit(1)).first()
            signed = and_(
                checkpoint_heads.c.tenant == event_heads.c.tenant, checkpoint_heads.c.seq == event_heads.c.seq
            )
            query = _HEADS.where(~select(checkpoint_heads.c.tenant).where(signed).exists())
            heads = [_head_of(row) for row in connection.execute(query).mappings()]
            return None if last is None else Checkpoint(**last._mapping, heads=()), heads  # pyright: ignore[reportPrivateUsage]

        return await self._database.read(look)

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        row = {column.name: getattr(checkpoint, column.name) for column in checkpoints.c}
        heads = [
            {"tenant": head.tenant, "seq": head.seq, "hash": head.hash, "checkpoint": checkpoint.number}
            for head in checkpoint.heads
        ]

        def add(connection: Connection) -> None:
            try:
                connection.execute(insert(checkpoints), row)
                if heads:
                    connection.execute(insert(checkpoint_heads), heads)
            except IntegrityError as error:
                raise Conflict(f"there is a checkpoint {checkpoint.number} already") from error

        await self._commit(add)

    async def list_checkpoints(self, after: int = 0, limit: int = 100) -> list[Checkpoint]:
        def read(connection: Connection) -> list[Checkpoint]:
            query = select(checkpoints).where(checkpoints.c.number > after).order_by(checkpoints.c.number).limit(limit)
            found = {row["number"]: Checkpoint(**row, heads=()) for row in connection.execute(query).mappings()}
            if not found:
                return []
            heads: dict[int, list[Head]] = {}
            of = checkpoint_heads.c.checkpoint.between(min(found), max(found))
            for row in connection.execute(select(checkpoint_heads).where(of)).mappings():
                heads.setdefault(row["checkpoint"], []).append(_head_of(row))
            return [
                replace(one, heads=tuple(sorted(heads.get(number, []), key=lambda head: head.tenant)))
                for number, one in found.items()
            ]

        return await self._database.read(read)

    async def add_audit_key(self, key: AuditKey, *, first: bool, event: Event) -> None:
        row, happened = storable(_key_row(key)), event_values(event)

        def add(connection: Connection) -> None:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("LOCK TABLE audit_keys IN SHARE ROW EXCLUSIVE MODE")
            if first and connection.execute(select(audit_keys.c.id).limit(1)).first() is not None:
                raise Conflict("there is a key for checkpoints already")
            connection.execute(insert(audit_keys), row)
            append_event(connection, happened)

        await self._commit(add)

    async def list_audit_keys(self) -> list[AuditKey]:
        query = select(audit_keys).order_by(audit_keys.c.created_at, audit_keys.c.id)
        return await self._all(query, lambda row: AuditKey(**row))


def _links(connection: Connection, after: tuple[str, int] | None, limit: int, tenant: str | None) -> list[Link]:
    query = _LINKS.limit(limit)
    if tenant is not None:
        query = query.where(events.c.tenant == tenant)
    if after is not None:
        query = query.where(tuple_(events.c.tenant, events.c.seq) > tuple_(literal(after[0]), literal(after[1])))
    if connection.dialect.name != "sqlite":
        rows: Any = connection.execute(query)
        return [_link(row, moment_text(row[3])) for row in rows]
    # Straight from the driver: a moment as the text that stands there, since somebody may have changed it; and it is
    # a million rows, each of which would cost several times as much.
    compiled = query.compile(dialect=connection.dialect)
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    driver: Any = connection.connection.driver_connection
    return [_link(row, _moment(row[3])) for row in driver.execute(compiled.string, values)]


def _moment(stored: Any) -> str:
    """What the text that stands for a moment says; any other text than the program's says something else: queries
    compare that text."""
    at = str(stored)
    return at if "T" in at else at.replace(" ", "T") + "+00:00"


def _link(row: Any, at: str) -> Link:
    return Link._make((*row[:3], at, *row[4:]))


def _wanted(query: EventQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [true()]
    for column, values in ((events.c.tenant, query.tenants), (events.c.target, query.targets)):
        if values is not None:
            found.append(or_(false(), *(column.in_(some) for some in pieces(sorted(values)))))
    if query.action is not None:
        noun = query.action.removesuffix("*")
        exact = noun == query.action
        found.append(events.c.action == noun if exact else events.c.action.startswith(noun, autoescape=True))
    for column, wanted in (
        (events.c.actor, query.actor),
        (events.c.outcome, query.outcome),
        (events.c.request_id, query.request_id),
    ):
        if wanted is not None:
            found.append(column == wanted)
    if query.since is not None:
        found.append(events.c.at >= query.since)
    if query.until is not None:
        found.append(events.c.at < query.until)
    if query.after_id is not None:
        found.append(events.c.id > query.after_id)
    if query.before_id is not None:
        found.append(events.c.id < query.before_id)
    return found


def _head_of(row: Any) -> Head:
    return Head(row["tenant"], row["seq"], row["hash"])


def _key_row(key: AuditKey) -> dict[str, Any]:
    return {column.name: getattr(key, column.name) for column in audit_keys.c}
