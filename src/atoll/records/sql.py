"""Records in SQL, the same statements for SQLite and PostgreSQL; the composition root opens it by a database URL.

Each method is one transaction, written as a function of a Connection; `database.py` says how it is run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from atoll.domain import crash
from atoll.domain.errors import Conflict, InvalidInput, NameTaken
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.quota import Bound, QuotaChange, QuotaUse, Spend
from atoll.domain.quota_rules import with_quotas
from atoll.domain.sandbox import LIVE, Sandbox, SandboxState
from atoll.records.base import KeyUse, Records
from atoll.records.prepared import Prepared
from atoll.records.rows import (
    key_of,
    key_row,
    key_use_row,
    sandbox_of,
    sandbox_row,
)
from atoll.records.schema import api_key_usage, api_keys, sandboxes
from atoll.records.sql_access_keys import SqlAccessKeys
from atoll.records.sql_accounts import SqlAccounts
from atoll.records.sql_audit import SqlAudit
from atoll.records.sql_bills import SqlBills
from atoll.records.sql_chain import append_event, append_events
from atoll.records.sql_child_keys import SqlChildKeys, end_children
from atoll.records.sql_chunks import SqlChunks
from atoll.records.sql_fixtures import SqlFixtures
from atoll.records.sql_groups import SqlGroups, hold_owner
from atoll.records.sql_idempotency import SqlIdempotency
from atoll.records.sql_ledger import SqlLedger
from atoll.records.sql_previews import SqlPreviews
from atoll.records.sql_quotas import SqlQuotas, change_overrides, charge, check_bounds
from atoll.records.sql_rates import SqlRates
from atoll.records.sql_revisions import SqlRevisions
from atoll.records.sql_sandbox_tokens import SqlSandboxTokens
from atoll.records.sql_secrets import SqlSecrets
from atoll.records.sql_store import (
    event_values,
    is_storable,
    not_swapped,
    owned_by,
    storable,
    swap,
    swap_values,
)
from atoll.records.sql_task_histories import SqlTaskHistories
from atoll.records.sql_tasks import SqlTasks
from atoll.records.sql_users import SqlUsers
from atoll.records.sql_webhooks import SqlWebhooks
from atoll.records.sql_workers import SqlWorkers
from atoll.records.sql_workspaces import SqlWorkspaces
from atoll.records.sql_wrapped_keys import SqlWrappedKeys

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


_ADD_SANDBOX = Prepared(insert(sandboxes).inline())
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
_SWAP_SANDBOX = swap(sandboxes, {"created_at"})
# `last_used_at` belongs to the use log, which does not count as a change of the key.
_SWAP_KEY = swap(api_keys, {"created_at", "last_used_at"})


class SqlRecords(
    SqlAccessKeys,
    SqlChildKeys,
    SqlAudit,
    SqlAccounts,
    SqlBills,
    SqlRates,
    SqlFixtures,
    SqlGroups,
    SqlIdempotency,
    SqlLedger,
    SqlPreviews,
    SqlQuotas,
    SqlSandboxTokens,
    SqlSecrets,
    SqlTaskHistories,
    SqlTasks,
    SqlUsers,
    SqlWebhooks,
    SqlWorkers,
    SqlWorkspaces,
    SqlWrappedKeys,
    SqlRevisions,
    SqlChunks,
    Records,
):
    """See `Records` for what each method does."""

    async def start(self) -> None:
        await self._database.start()

    async def close(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        await self._database.read(lambda connection: connection.execute(select(1)).scalar(), timeout_s=PING_S)

    # sandboxes

    async def add_sandbox(self, sandbox: Sandbox, event: Event, *, bounds: Sequence[Bound] = ()) -> list[QuotaUse]:
        row, happened = storable(sandbox_row(sandbox)), event_values(event)

        def add(connection: Connection) -> list[QuotaUse]:
            used = check_bounds(connection, bounds, row["memory_bytes"], new=True) if bounds else []
            hold_owner(connection, sandbox.owner)
            try:
                _ADD_SANDBOX.run(connection, row)
            except IntegrityError as error:
                raise _taken(sandbox) from error
            append_event(connection, happened)
            crash.point("records.write.before_commit")
            return used

        used = await self._database.write(add)
        crash.point("records.write.after_commit")
        return used

    async def swap_sandbox(
        self, sandbox: Sandbox, event: Event | None, *, bounds: Sequence[Bound] = (), charges: Sequence[Spend] = ()
    ) -> Sandbox:
        after = replace(sandbox, version=sandbox.version + 1)
        row = swap_values(sandbox_row(after), sandbox.version)
        happened = None if event is None else event_values(event)
        now = datetime.now(UTC)

        def swap(connection: Connection) -> None:
            if bounds:
                check_bounds(connection, bounds, after.spec.resources.memory_bytes, new=False)
            try:
                swapped = _SWAP_SANDBOX.run(connection, row)
            except IntegrityError as error:
                raise _taken(sandbox) from error
            if swapped != 1:
                raise not_swapped(connection, sandboxes, "sandbox", sandbox.id)
            charge(connection, charges, now)
            if happened is not None:
                append_event(connection, happened)
            crash.point("records.write.before_commit")

        await self._database.write(swap)
        crash.point("records.write.after_commit")
        return after

    async def get_sandbox(self, sandbox_id: str) -> Sandbox | None:
        return await self._one(_GET_SANDBOX, sandbox_of, wanted=sandbox_id)

    async def list_sandboxes(
        self,
        *,
        owner: str | tuple[str, ...] | None = None,
        states: Collection[SandboxState] | None = None,
        removed: bool | None = False,
        limit: int = 1000,
    ) -> list[Sandbox]:
        query = select(sandboxes).order_by(sandboxes.c.created_at.desc(), sandboxes.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(owned_by(sandboxes, owner))
        if states is not None:
            query = query.where(sandboxes.c.state.in_([state.value for state in states]))
            if LIVE.issuperset(states):
                query = query.where(sandboxes.c.live)  # has an index, `state` has none
        if removed is not None:
            query = query.where(sandboxes.c.removed.is_(removed))
        return await self._all(query, sandbox_of)

    async def find_named_sandboxes(self, owners: tuple[str, ...], namespace: str, name: str | None) -> list[Sandbox]:
        if not (is_storable(namespace) and is_storable(name or "")):
            return []
        query = select(sandboxes).where(owned_by(sandboxes, owners), sandboxes.c.namespace == namespace)
        query = query.where(~sandboxes.c.removed)
        if name is not None:
            query = query.where(sandboxes.c.name == name)
        return await self._all(query.order_by(sandboxes.c.created_at.desc(), sandboxes.c.id.desc()), sandbox_of)

    async def count_live(self, owner: str | None = None) -> int:
        return await self._database.read(lambda connection: _count(connection, owner))

    async def prune_sandboxes(self, ended_before: datetime) -> int:
        return await self._prune(sandboxes, (sandboxes.c.ended_at < ended_before) & ~sandboxes.c.live)

    # keys

    async def swap_key(
        self,
        key: ApiKey,
        event: Event | None,
        *,
        quotas: QuotaChange | None = None,
        children_end: Event | None = None,
    ) -> ApiKey:
        row = swap_values(key_row(replace(key, version=key.version + 1)), key.version)

        def swap(connection: Connection) -> ApiKey:
            try:
                swapped = _SWAP_KEY.run(connection, row)
            except IntegrityError as error:
                raise Conflict("another key has that hash") from error
            if swapped != 1:
                raise not_swapped(connection, api_keys, "key", key.id)
            after = None if quotas is None else change_overrides(connection, quotas)
            ended = [] if children_end is None else end_children(connection, key.id, children_end)
            if event is not None:
                append_event(connection, event_values(event if after is None else with_quotas(event, after)))
            append_events(connection, map(event_values, ended))
            crash.point("records.write.before_commit")
            # Read back, for the `last_used_at` that the swap leaves alone.
            return key_of(_GET_KEY.first(connection, {"wanted": key.id}) or {})

        stored = await self._database.write(swap, durable=True)
        crash.point("records.write.after_commit")
        return stored

    async def find_key(self, key_hash: str) -> ApiKey | None:
        return await self._one(_FIND_KEY, key_of, wanted=key_hash)

    async def get_key(self, key_id: str) -> ApiKey | None:
        return await self._one(_GET_KEY, key_of, wanted=key_id)

    async def list_keys(self, *, owner: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if owner is not None:
            query = query.where(api_keys.c.owner == owner)
        if not include_revoked:
            query = query.where(api_keys.c.revoked_at.is_(None))
        return await self._all(query, key_of)

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

    async def _prune(self, table: Table, old: Any) -> int:
        some = delete(table).where(table.c.id.in_(select(table.c.id).where(old).limit(PRUNE_ROWS)))
        pruned = 0
        while True:
            gone = await self._database.write(lambda connection: connection.execute(some).rowcount)
            pruned += gone
            if gone < PRUNE_ROWS:
                return pruned


def _taken(sandbox: Sandbox) -> Conflict:
    if sandbox.namespace is None:
        return Conflict(f"sandbox {sandbox.id} exists already")
    return NameTaken(f"there is a sandbox {sandbox.name!r} in the namespace {sandbox.namespace!r} already")


def _count(connection: Connection, owner: str | None) -> int:
    counted = _COUNT_LIVE if owner is None else _COUNT_LIVE_OF
    return (counted.first(connection, {"of": owner}) or {"live": 0})["live"]
