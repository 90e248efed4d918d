"""Records in SQL, the same statements for SQLite and PostgreSQL; the composition root opens it by a database URL.

Each method is one transaction, written as a function of a Connection; `database.py` says how it is run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from atoll.domain import crash
from atoll.domain.errors import Conflict, InvalidInput, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.sandbox import LIVE, Sandbox, SandboxState
from atoll.records.base import KeyUse, Records
from atoll.records.database import Database
from atoll.records.prepared import Prepared
from atoll.records.rows import (
    event_of,
    event_row,
    key_of,
    key_row,
    key_use_row,
    sandbox_of,
    sandbox_row,
)
from atoll.records.schema import api_key_usage, api_keys, events, sandboxes

PRUNE_ROWS = 500  # in one transaction: nobody waits long behind a clean-up
PING_S = 1.0


def open_records(url: str, *, connections: int = 8, timeout_s: float = 5.0) -> SqlRecords:
    """The store at a sqlite:/// or postgresql:// URL (a driver's name in it is fine), not started yet."""
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite" and parsed.database and parsed.database != ":memory:":
        from atoll.records.sqlite import Sqlite

        return SqlRecords(Sqlite(Path(parsed.database), readers=connections, timeout_s=timeout_s))
    if kind == "postgresql":
        from atoll.records.postgres import Postgres

        return SqlRecords(Postgres(url, connections=connections, timeout_s=timeout_s))
    raise InvalidInput("a database URL is sqlite:///PATH or postgresql://...", field="database.url")


_ADD_EVENT = Prepared(insert(events).inline())
_ADD_SANDBOX = Prepared(insert(sandboxes).inline())
_ADD_KEY = Prepared(insert(api_keys).inline())
_ADD_KEY_USE = Prepared(insert(api_key_usage).inline())
_LIVE = select(func.count().label("live")).select_from(sandboxes).where(sandboxes.c.live)
_COUNT_LIVE = Prepared(_LIVE)
_COUNT_LIVE_OF = Prepared(_LIVE.where(sandboxes.c.owner == bindparam("of")))
_GET_SANDBOX = Prepared(select(sandboxes).where(sandboxes.c.id == bindparam("wanted")))
_GET_KEY = Prepared(select(api_keys).where(api_keys.c.id == bindparam("wanted")))
_FIND_KEY = Prepared(select(api_keys).where(api_keys.c.hash == bindparam("wanted")))
_USE_KEY = Prepared(
    update(api_keys)
    .where(api_keys.c.id == bindparam("of"))
    .where(api_keys.c.last_used_at.is_(None) | (api_keys.c.last_used_at < bindparam("last")))
    .values(last_used_at=bindparam("last"))
)
# Whoever adds a sandbox of the same owner waits here until this transaction ends.
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(1, hashtext(:owner))")


def _swap(table: Table, kept: set[str]) -> Prepared:
    names = [name for name in table.c.keys() if name not in {"id", *kept}]  # noqa: SIM118
    return Prepared(
        update(table)
        .where(table.c.id == bindparam("of"), table.c.version == bindparam("read_version"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )


_SWAP_SANDBOX = _swap(sandboxes, {"created_at"})
# `last_used_at` belongs to the use log, which does not count as a change of the key.
_SWAP_KEY = _swap(api_keys, {"created_at", "last_used_at"})


class SqlRecords(Records):
    """See `Records` for what each method does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self) -> None:
        await self._database.start()

    async def close(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        await self._database.read(lambda connection: connection.execute(select(1)).scalar(), timeout_s=PING_S)

    # sandboxes

    async def add_sandbox(self, sandbox: Sandbox, event: Event, *, quota: int | None = None) -> None:
        row, happened = _storable(sandbox_row(sandbox)), _storable(event_row(event))

        def add(connection: Connection) -> None:
            if quota is not None:
                if connection.dialect.name == "postgresql":
                    connection.execute(_LOCK_OWNER, {"owner": sandbox.owner})
                live = _count(connection, sandbox.owner)
                if live >= quota:
                    raise QuotaExceeded(f"concurrent session limit reached ({live}/{quota})")
            try:
                _ADD_SANDBOX.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"sandbox {sandbox.id} exists already") from error
            _ADD_EVENT.run(connection, happened)
            crash.point("records.write.before_commit")

        await self._database.write(add)
        crash.point("records.write.after_commit")

    async def swap_sandbox(self, sandbox: Sandbox, event: Event | None) -> Sandbox:
        after = replace(sandbox, version=sandbox.version + 1)
        row = _swap_values(sandbox_row(after), sandbox.version)
        happened = None if event is None else _storable(event_row(event))

        def swap(connection: Connection) -> None:
            if _SWAP_SANDBOX.run(connection, row) != 1:
                raise _not_swapped(connection, sandboxes, "sandbox", sandbox.id)
            if happened is not None:
                _ADD_EVENT.run(connection, happened)
            crash.point("records.write.before_commit")

        await self._database.write(swap)
        crash.point("records.write.after_commit")
        return after

    async def get_sandbox(self, sandbox_id: str) -> Sandbox | None:
        row = await self._one(_GET_SANDBOX, sandbox_id)
        return None if row is None else sandbox_of(row)

    async def list_sandboxes(
        self,
        *,
        owner: str | None = None,
        states: Collection[SandboxState] | None = None,
        removed: bool | None = False,
        limit: int = 1000,
    ) -> list[Sandbox]:
        query = select(sandboxes).order_by(sandboxes.c.created_at.desc(), sandboxes.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(sandboxes.c.owner == owner)
        if states is not None:
            query = query.where(sandboxes.c.state.in_([state.value for state in states]))
            if LIVE.issuperset(states):
                query = query.where(sandboxes.c.live)  # has an index, `state` has none
        if removed is not None:
            query = query.where(sandboxes.c.removed.is_(removed))

        def read(connection: Connection) -> list[Sandbox]:
            return [sandbox_of(row) for row in connection.execute(query).mappings()]

        return await self._database.read(read)

    async def count_live(self, owner: str | None = None) -> int:
        return await self._database.read(lambda connection: _count(connection, owner))

    async def prune_sandboxes(self, ended_before: datetime) -> int:
        return await self._prune(sandboxes, (sandboxes.c.ended_at < ended_before) & ~sandboxes.c.live)

    # keys

    async def add_key(self, key: ApiKey, event: Event) -> None:
        row, happened = _storable(key_row(key)), _storable(event_row(event))

        def add(connection: Connection) -> None:
            try:
                _ADD_KEY.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"key {key.id} exists already") from error
            _ADD_EVENT.run(connection, happened)
            crash.point("records.write.before_commit")

        await self._database.write(add, durable=True)
        crash.point("records.write.after_commit")

    async def swap_key(self, key: ApiKey, event: Event | None) -> ApiKey:
        row = _swap_values(key_row(replace(key, version=key.version + 1)), key.version)
        happened = None if event is None else _storable(event_row(event))

        def swap(connection: Connection) -> ApiKey:
            try:
                swapped = _SWAP_KEY.run(connection, row)
            except IntegrityError as error:
                raise Conflict("another key has that hash") from error
            if swapped != 1:
                raise _not_swapped(connection, api_keys, "key", key.id)
            if happened is not None:
                _ADD_EVENT.run(connection, happened)
            crash.point("records.write.before_commit")
            # Read back, for the `last_used_at` that the swap leaves alone.
            return key_of(_GET_KEY.first(connection, {"wanted": key.id}) or {})

        stored = await self._database.write(swap, durable=True)
        crash.point("records.write.after_commit")
        return stored

    async def find_key(self, key_hash: str) -> ApiKey | None:
        row = await self._one(_FIND_KEY, key_hash)
        return None if row is None else key_of(row)

    async def get_key(self, key_id: str) -> ApiKey | None:
        row = await self._one(_GET_KEY, key_id)
        return None if row is None else key_of(row)

    async def list_keys(self, *, include_revoked: bool = False) -> list[ApiKey]:
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if not include_revoked:
            query = query.where(api_keys.c.revoked_at.is_(None))

        def read(connection: Connection) -> list[ApiKey]:
            return [key_of(row) for row in connection.execute(query).mappings()]

        return await self._database.read(read)

    async def log_key_use(self, uses: Sequence[KeyUse]) -> None:
        if not uses:
            return
        rows = [key_use_row(use) for use in uses]
        last: dict[str, datetime] = {}
        for use in uses:
            last[use.key_id] = max(use.at, last.get(use.key_id, use.at))
        # In one order, so that two servers that log the same keys do not wait for each other in a circle.
        used = [{"of": key_id, "last": last[key_id]} for key_id in sorted(last)]

        def log(connection: Connection) -> None:
            _ADD_KEY_USE.run_many(connection, rows)
            _USE_KEY.run_many(connection, used)

        await self._database.write(log)

    async def prune_key_use(self, before: datetime) -> int:
        return await self._prune(api_key_usage, api_key_usage.c.at < before)

    # events

    async def list_events(
        self, *, tenant: str | None = None, target: str | None = None, after_id: int = 0, limit: int = 1000
    ) -> list[Event]:
        query = select(events).where(events.c.id > after_id).order_by(events.c.id).limit(limit)
        if tenant is not None:
            query = query.where(events.c.tenant == tenant)
        if target is not None:
            query = query.where(events.c.target == target)

        def read(connection: Connection) -> list[Event]:
            return [event_of(row) for row in connection.execute(query).mappings()]

        return await self._database.read(read)

    async def _one(self, query: Prepared, wanted: str) -> dict[str, Any] | None:
        if "\0" in wanted:
            return None  # PostgreSQL has no such text
        return await self._database.read(lambda connection: query.first(connection, {"wanted": wanted}))

    async def _prune(self, table: Table, old: Any) -> int:
        some = delete(table).where(table.c.id.in_(select(table.c.id).where(old).limit(PRUNE_ROWS)))
        pruned = 0
        while True:
            gone = await self._database.write(lambda connection: connection.execute(some).rowcount)
            pruned += gone
            if gone < PRUNE_ROWS:
                return pruned


def _count(connection: Connection, owner: str | None) -> int:
    counted = _COUNT_LIVE if owner is None else _COUNT_LIVE_OF
    return (counted.first(connection, {"of": owner}) or {"live": 0})["live"]


def _swap_values(row: dict[str, Any], read_version: int) -> dict[str, Any]:
    values = {f"new_{name}": value for name, value in _storable(row).items()}
    return values | {"of": row["id"], "read_version": read_version}


def _not_swapped(connection: Connection, table: Table, what: str, wanted: str) -> Conflict | NotFound:
    found = connection.execute(select(table.c.version).where(table.c.id == wanted)).scalar()
    if found is None:
        return NotFound(f"{what} {wanted} does not exist")
    return StaleVersion(f"{what} {wanted} changed since it was read")


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    """The row itself. InvalidInput for text that not every database can hold."""
    for name, value in row.items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidInput(f"{name} is not valid text", field=name) from None
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(f"{name} must not contain NUL", field=name)
    return row
