"""Fixtures in SQL: a part of `SqlRecords`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.fixture import Fixture, FixtureKind
from atoll.records.fixtures import FixtureRecords
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.rows import Row
from atoll.records.schema import fixtures, sandboxes
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import SqlStore, event_values, lock_owner, storable, swap

_ADD = Prepared(insert(fixtures).inline())
_GET = Prepared(select(fixtures).where(fixtures.c.id == bindparam("wanted")))
_SWAP = swap(fixtures, {"sandbox", "kind", "name", "owner", "created_at"})
_DELETE = Prepared(delete(fixtures).where(fixtures.c.id == bindparam("of")))


class SqlFixtures(SqlStore, FixtureRecords):
    """See `FixtureRecords` for what each method does."""

    async def add_fixture(self, fixture: Fixture, event: Event, *, quota: int) -> None:
        row, happened = storable(_row(fixture)), event_values(event)
        its_sandbox = select(sandboxes.c.id).where(sandboxes.c.id == fixture.sandbox).with_for_update()
        of_it = (fixtures.c.sandbox == fixture.sandbox) & (fixtures.c.kind == fixture.kind.value)

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.FIXTURES, fixture.sandbox)
            if connection.execute(its_sandbox).first() is None:
                raise NotFound(f"sandbox {fixture.sandbox} does not exist")
            kept: int = connection.execute(select(func.count()).select_from(fixtures).where(of_it)).scalar_one()
            taken = select(fixtures.c.id).where(fixtures.c.id == fixture.id)
            if connection.execute(taken).first() is not None:
                raise _taken(fixture)
            if kept >= quota:
                raise QuotaExceeded(f"a sandbox has at most {quota} {fixture.kind}s")
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise _taken(fixture) from error
            append_event(connection, happened)

        await self._commit(add)

    async def get_fixture(self, fixture_id: str) -> Fixture | None:
        return await self._one(_GET, _of, wanted=fixture_id)

    async def list_fixtures(
        self, *, sandbox: str | None = None, kind: FixtureKind | None = None, limit: int = 100_000
    ) -> list[Fixture]:
        query = select(fixtures).order_by(fixtures.c.created_at, fixtures.c.id).limit(limit)
        if sandbox is not None:
            query = query.where(fixtures.c.sandbox == sandbox)
        if kind is not None:
            query = query.where(fixtures.c.kind == kind.value)
        return await self._all(query, _of)

    async def swap_fixture(self, fixture: Fixture, event: Event | None) -> Fixture:
        after = replace(fixture, version=fixture.version + 1)
        what = fixture.kind.value
        await self._swap(_SWAP, fixtures, what, _row(after), event, durable=event is not None)
        return after

    async def delete_fixture(self, fixture_id: str, event: Event) -> None:
        happened = event_values(event)

        def remove(connection: Connection) -> None:
            if _DELETE.run(connection, {"of": fixture_id}) != 1:
                raise NotFound(f"{fixture_id} does not exist")
            append_event(connection, happened)

        await self._commit(remove)

    async def drop_fixtures(self, sandbox: str) -> int:
        of_it = delete(fixtures).where(fixtures.c.sandbox == sandbox)
        return await self._commit(lambda connection: connection.execute(of_it).rowcount, durable=False)


def _taken(fixture: Fixture) -> Conflict:
    return Conflict(f"there is a {fixture.kind} {fixture.name!r} in this sandbox already")


def _row(fixture: Fixture) -> dict[str, Any]:
    return {
        "id": fixture.id,
        "sandbox": fixture.sandbox,
        "kind": fixture.kind.value,
        "name": fixture.name,
        "owner": fixture.owner,
        "spec": json.dumps(fixture.spec, separators=(",", ":")),
        "state": json.dumps(fixture.state, separators=(",", ":")),
        "version": fixture.version,
        "created_at": fixture.created_at,
        "updated_at": fixture.updated_at,
    }


def _of(row: Row) -> Fixture:
    fields = {name: row[name] for name in ("sandbox", "name", "owner", "created_at", "updated_at", "version")}
    kind, spec, state = FixtureKind(row["kind"]), json.loads(row["spec"]), json.loads(row["state"])
    return Fixture(kind=kind, spec=spec, state=state, **fields)
