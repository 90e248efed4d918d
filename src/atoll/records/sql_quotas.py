"""Quotas in SQL: overrides by subject and name, counters by subject, name and minute, and the check of live sandboxes.

`sql.py` inherits it, and calls `check_bounds` in the transactions that make a sandbox live.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, String, bindparam, cast, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.domain.event import Event
from atoll.domain.quota import (
    Bound,
    Overrides,
    OverridesOf,
    QuotaChange,
    QuotaName,
    QuotaUse,
    SandboxUse,
    Spend,
    minute_of,
    told,
    window_start,
)
from atoll.domain.quota_rules import after_one_more, charged, refusal, with_quotas
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.quotas import QuotaRecords
from atoll.records.schema import api_keys, quota_overrides, quota_spent, sandboxes
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import hold_owner
from atoll.records.sql_store import SqlStore, event_values, lock_owner, pieces, storable

Query = Any  # of several columns: SQLAlchemy types those by each
PRUNE_ROWS = 500

_ADD_OVERRIDE = Prepared(insert(quota_overrides).inline())
_DROP_OVERRIDES = Prepared(delete(quota_overrides).where(quota_overrides.c.subject == bindparam("of")))


def _count(kind: type[sqlite.Insert] | type[postgresql.Insert]) -> sqlite.Insert | postgresql.Insert:
    new = kind(quota_spent).inline()
    total = quota_spent.c.amount + new.excluded.amount
    key = [quota_spent.c.subject, quota_spent.c.name, quota_spent.c.minute]
    return new.on_conflict_do_update(index_elements=key, set_={"amount": total})


_COUNT = Prepared(_count(sqlite.Insert), on_postgres=_count(postgresql.Insert))
_spent: Query = select(
    func.coalesce(func.sum(quota_spent.c.amount), 0).label("amount"),
    func.min(quota_spent.c.minute).label("first"),
)
_SPENT = Prepared(
    _spent.where(
        quota_spent.c.subject == bindparam("of"),
        quota_spent.c.name == bindparam("what"),
        quota_spent.c.minute >= bindparam("since"),
    )
)


def _live(by_credential: bool, with_memory: bool) -> Prepared:
    """How many live sandboxes a subject has, and (rows, not only an index) what memory they asked for."""
    table = sandboxes.c
    figures: Query = select(func.count().label("sandboxes"))
    if with_memory:
        figures = figures.add_columns(func.coalesce(func.sum(table.memory_bytes), 0).label("memory_bytes"))
    return Prepared(_whose(figures.select_from(sandboxes).where(table.live), by_credential))


def _made(by_credential: bool) -> Prepared:
    """How many it made since a moment; not those that could not be made."""
    table = sandboxes.c
    was_made = table.live | table.started_at.is_not(None)
    figures: Query = select(func.count().label("made")).select_from(sandboxes)
    return Prepared(_whose(figures.where(was_made, table.created_at >= bindparam("since")), by_credential))


def _whose(query: Query, by_credential: bool) -> Query:
    table = sandboxes.c
    if by_credential:  # the second condition is the partial index's
        return query.where(table.credential.in_(_below()), table.credential != "")
    return query.where(table.owner == bindparam("of"))


def _below() -> Query:
    """A key, and all that come from it: what is set for it bounds them together."""
    below = select(cast(bindparam("of"), String).label("id")).cte("below", recursive=True)
    below = below.union(select(api_keys.c.id).where(api_keys.c.parent == below.c.id))
    return select(below.c.id)


def _above() -> Query:
    """The keys that one comes from."""
    above = select(api_keys.c.parent.label("id")).where(api_keys.c.id == bindparam("of")).cte("above", recursive=True)
    above = above.union(select(api_keys.c.parent).where(api_keys.c.id == above.c.id))
    return select(above.c.id).where(above.c.id.is_not(None))


_ABOVE = _above()
_LIVE = {(by, memory): _live(by, memory) for by in (False, True) for memory in (False, True)}
_MADE = {by: _made(by) for by in (False, True)}


class SqlQuotas(SqlStore, QuotaRecords):
    """See `QuotaRecords` for what each method does."""

    async def get_quotas(self, subjects: Collection[str]) -> dict[str, OverridesOf]:
        query = select(quota_overrides).where(quota_overrides.c.subject.in_(sorted(set(subjects))))
        return {one.subject: one for one in _overrides(await self._all(query, dict))}

    async def list_quotas(self, *, limit: int = 1000) -> list[OverridesOf]:
        some = select(quota_overrides.c.subject).distinct().order_by(quota_overrides.c.subject).limit(limit)
        query = select(quota_overrides).where(quota_overrides.c.subject.in_(some)).order_by(quota_overrides.c.subject)
        return _overrides(await self._all(query, dict))

    async def put_quotas(self, overrides: OverridesOf, event: Event) -> None:
        subject, happened = overrides.subject, event_values(event)
        rows = [
            storable({"subject": subject, "name": name.value, "amount": amount})
            for name, amount in sorted(overrides.amounts.items())
        ]

        def put(connection: Connection) -> None:
            lock_owner(connection, Lock.SPENDS, subject)
            hold_owner(connection, subject)
            _DROP_OVERRIDES.run(connection, {"of": subject})
            _ADD_OVERRIDE.run_many(connection, rows)
            append_event(connection, happened)

        await self._commit(put)

    async def change_quotas(self, change: QuotaChange, event: Event) -> None:
        def alter(connection: Connection) -> None:
            after = change_overrides(connection, change)
            append_event(connection, event_values(with_quotas(event, after)))

        await self._commit(alter)

    async def sandbox_use(self, bound: Bound) -> SandboxUse:
        return await self._database.read(lambda connection: _use(connection, bound, with_memory=True))

    async def spend(self, spends: Sequence[Spend], now: datetime) -> list[QuotaUse]:
        wanted = sorted(spends, key=lambda one: (one.subject, one.name))

        def count(connection: Connection) -> list[QuotaUse]:
            for subject in sorted({one.subject for one in wanted if one.amount and one.limit is not None}):
                lock_owner(connection, Lock.SPENDS, subject)
            used = [_spend(connection, one, now) for one in wanted]
            charge(connection, wanted, now)
            return used

        if not any(one.amount for one in wanted):
            return await self._database.read(lambda connection: [_spend(connection, one, now) for one in wanted])
        return await self._database.write(count)

    async def spent(self, subjects: Collection[str], now: datetime) -> dict[tuple[str, QuotaName], int]:
        found: dict[tuple[str, QuotaName], int] = {}
        for some in pieces(sorted(set(subjects))):
            table = quota_spent.c
            query: Query = (
                select(table.subject, table.name, func.sum(table.amount).label("amount"))
                .where(table.subject.in_(some), table.minute >= window_start(now))
                .group_by(table.subject, table.name)
            )
            for row in await self._all(query, dict):
                found[row["subject"], QuotaName(row["name"])] = int(row["amount"])
        return found

    async def prune_spent(self, now: datetime) -> int:
        old = quota_spent.c.minute < window_start(now)
        query: Query = select(quota_spent.c.subject, quota_spent.c.name, quota_spent.c.minute)
        pruned = 0
        while True:
            rows: list[dict[str, Any]] = await self._all(query.where(old).limit(PRUNE_ROWS), dict)

            def drop(connection: Connection, rows: Sequence[dict[str, Any]] = rows) -> None:
                _DROP_SPENT.run_many(connection, [{f"of_{name}": value for name, value in row.items()} for row in rows])

            if rows:
                await self._database.write(drop)
            pruned += len(rows)
            if len(rows) < PRUNE_ROWS:
                return pruned

    async def add_event(self, event: Event) -> None:
        happened = event_values(event)
        await self._commit(lambda connection: append_event(connection, happened), durable=False)


_DROP_SPENT = Prepared(
    delete(quota_spent).where(
        quota_spent.c.subject == bindparam("of_subject"),
        quota_spent.c.name == bindparam("of_name"),
        quota_spent.c.minute == bindparam("of_minute"),
    )
)


def change_overrides(connection: Connection, change: QuotaChange) -> Overrides:
    """What is set for the subject after the change; nobody else sets anything for it until the transaction ends."""
    subject = change.subject
    lock_owner(connection, Lock.SPENDS, subject)
    hold_owner(connection, subject)
    rows = connection.execute(select(quota_overrides).where(quota_overrides.c.subject == subject)).mappings()
    after = change.applied({QuotaName(row["name"]): row["amount"] for row in rows})
    _DROP_OVERRIDES.run(connection, {"of": subject})
    wanted = sorted(after.items())
    _ADD_OVERRIDE.run_many(
        connection, [storable({"subject": subject, "name": name.value, "amount": most}) for name, most in wanted]
    )
    return after


def check_bounds(connection: Connection, bounds: Iterable[Bound], memory_bytes: int, *, new: bool) -> list[QuotaUse]:
    """What the bounds' subjects have with one more live sandbox of that memory; QuotaExceeded where that is too much.

    Nobody else makes one live for them until the transaction ends. One that is not `new` was made before.
    """
    wanted = sorted(bounds, key=lambda bound: (bound.subject, bound.by_credential))
    for subject in sorted({bound.subject for bound in wanted}):
        lock_owner(connection, Lock.SANDBOXES, subject)
    used: list[QuotaUse] = []
    for bound in wanted:
        has = _use(connection, bound, with_memory=bound.memory_bytes is not None)
        used += after_one_more(bound, has, memory_bytes, new=new)
    return used


def charge(connection: Connection, charges: Iterable[Spend], now: datetime) -> None:
    """Count what was used, whatever the limits; in one order, so that no two transactions wait in a circle."""
    minute = minute_of(now)

    def made_by(key: str) -> list[str]:
        return list(connection.execute(_ABOVE, {"of": key}).scalars())

    for one in sorted(charged(charges, made_by), key=lambda one: (one.subject, one.name)):
        if one.amount:
            row = {"subject": one.subject, "name": one.name.value, "minute": minute, "amount": one.amount}
            _COUNT.run(connection, row)


def _spend(connection: Connection, spend: Spend, now: datetime) -> QuotaUse:
    wanted = {"of": spend.subject, "what": spend.name.value, "since": window_start(now)}
    row = _SPENT.first(connection, wanted) or {"amount": 0, "first": None}
    amount = int(row["amount"])
    refused = refusal(spend, amount, row["first"], now)
    if refused is not None:
        raise refused
    return QuotaUse(spend.name, spend.subject, told(spend.name, amount + spend.amount), spend.limit)


def _use(connection: Connection, bound: Bound, *, with_memory: bool) -> SandboxUse:
    live = _LIVE[bound.by_credential, with_memory].first(connection, {"of": bound.subject}) or {}
    made = 0
    if bound.since is not None:
        row = _MADE[bound.by_credential].first(connection, {"of": bound.subject, "since": bound.since}) or {}
        made = int(row.get("made", 0))
    return SandboxUse(int(live.get("sandboxes", 0)), int(live.get("memory_bytes", 0)), made)


def _overrides(rows: Iterable[dict[str, Any]]) -> list[OverridesOf]:
    found: dict[str, dict[QuotaName, int | None]] = {}
    for row in rows:
        found.setdefault(row["subject"], {})[QuotaName(row["name"])] = row["amount"]
    return [OverridesOf(subject, amounts) for subject, amounts in found.items()]
