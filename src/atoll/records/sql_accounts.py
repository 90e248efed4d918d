"""Accounts, requests for quotas, and keys as who administers them sees them, in SQL: a part of `SqlRecords`."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.account import Account, KeyStats, QuotaRequest
from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.key import ApiKey
from atoll.domain.sandbox import Sandbox
from atoll.records.accounts import AccountRecords
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.rows import key_of, key_row, sandbox_of
from atoll.records.schema import access_keys, accounts, api_key_usage, api_keys, quota_requests, sandboxes
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import leave_groups
from atoll.records.sql_leavings import forget_leavings
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    lock_owner,
    not_swapped,
    storable,
    swap,
    swap_values,
)

PENDING = "pending"

_ADD = Prepared(insert(accounts).inline())
_ADD_KEY = Prepared(insert(api_keys).inline())
_GET = Prepared(select(accounts).where(accounts.c.id == bindparam("wanted")))
_SWAP = swap(accounts, {"created_at"})


class SqlAccounts(SqlStore, AccountRecords):
    """See `AccountRecords` for what each method does."""

    async def page_keys(
        self, *, limit: int, offset: int = 0, usable_at: datetime | None = None
    ) -> tuple[list[ApiKey], int]:
        query, count = select(api_keys), select(func.count()).select_from(api_keys)
        if usable_at is not None:
            expires_at = api_keys.c.expires_at
            usable = api_keys.c.revoked_at.is_(None) & (expires_at.is_(None) | (expires_at > usable_at))
            query, count = query.where(usable), count.where(usable)
        query = query.order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc()).limit(limit).offset(offset)

        def read(connection: Connection) -> tuple[list[ApiKey], int]:
            found = [key_of(row) for row in connection.execute(query).mappings()]
            return found, connection.execute(count).scalar_one()

        return await self._database.read(read)

    async def delete_key(self, key_id: str, event: Event) -> None:
        happened = event_values(event)

        def remove(connection: Connection) -> None:
            if connection.execute(delete(api_keys).where(api_keys.c.id == key_id)).rowcount != 1:
                raise NotFound(f"key {key_id} does not exist")
            leave_groups(connection, key_id)
            forget_leavings(connection, key_id)
            connection.execute(delete(api_key_usage).where(api_key_usage.c.key_id == key_id))
            connection.execute(delete(access_keys).where(access_keys.c.key == key_id))
            connection.execute(delete(accounts).where(accounts.c.id == key_id))
            append_event(connection, happened)

        await self._commit(remove)

    async def key_stats(self, key_id: str, since: datetime | None = None) -> KeyStats:
        good = func.sum(case((api_key_usage.c.status_code < 400, 1), else_=0))
        query = select(func.count(), good, func.max(api_key_usage.c.at)).where(api_key_usage.c.key_id == key_id)
        if since is not None:
            query = query.where(api_key_usage.c.at >= since)

        def read(connection: Connection) -> KeyStats:
            requests, successful, last_at = connection.execute(query).one()
            return KeyStats(requests, int(successful or 0), last_at)

        return await self._database.read(read)

    async def list_sandboxes_since(self, owner: str, since: datetime, *, limit: int) -> list[Sandbox]:
        query = (
            select(sandboxes)
            .where(sandboxes.c.owner == owner, sandboxes.c.created_at >= since)
            .order_by(sandboxes.c.created_at.desc(), sandboxes.c.id.desc())
            .limit(limit)
        )
        return await self._all(query, sandbox_of)

    async def add_account(self, account: Account, event: Event | None) -> None:
        row, happened = storable(_account_row(account)), None if event is None else event_values(event)

        def add(connection: Connection) -> None:
            _insert(connection, row)
            if happened is not None:
                append_event(connection, happened)

        await self._commit(add)

    async def swap_account(self, account: Account, event: Event) -> Account:
        after = replace(account, version=account.version + 1)
        row, happened = swap_values(_account_row(after), account.version), event_values(event)

        def change(connection: Connection) -> Account:
            try:
                swapped = _SWAP.run(connection, row)
            except IntegrityError as error:
                raise Conflict("another account has that e-mail address") from error
            if swapped != 1:
                raise not_swapped(connection, accounts, "account", account.id)
            append_event(connection, happened)
            return after

        return await self._commit(change)

    async def get_account(self, account_id: str) -> Account | None:
        return await self._one(_GET, _account_of, wanted=account_id)

    async def add_account_key(self, account: Account, key: ApiKey, event: Event, *, most: int) -> None:
        account_row, row, happened = storable(_account_row(account)), storable(key_row(key)), event_values(event)

        known = select(func.count()).select_from(accounts).where(accounts.c.email.is_not(None))

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.SIGNUPS, "accounts")
            if connection.execute(known).scalar_one() >= most:
                raise QuotaExceeded("no more keys are given at present")
            _insert(connection, account_row)
            try:
                _ADD_KEY.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"key {key.id} exists already") from error
            append_event(connection, happened)

        await self._commit(add)

    async def add_quota_request(self, request: QuotaRequest, event: Event, *, most: int) -> QuotaRequest:
        row = storable({**_request_row(request), "detail": json.dumps(dict(request.detail))})
        pending = select(func.count()).select_from(quota_requests).where(quota_requests.c.status == PENDING)

        def add(connection: Connection) -> QuotaRequest:
            lock_owner(connection, Lock.SIGNUPS, "requests")
            if connection.execute(pending).scalar_one() >= most:
                raise QuotaExceeded(f"{most} requests wait for an answer already: try again another day")
            added = connection.execute(insert(quota_requests).values(row).returning(quota_requests.c.id)).scalar_one()
            append_event(connection, event_values(replace(event, target=f"quota_request_{added}")))
            return replace(request, id=added)

        return await self._commit(add)

    async def list_quota_requests(self, *, limit: int = 1000) -> list[QuotaRequest]:
        query = select(quota_requests).order_by(quota_requests.c.id.desc()).limit(limit)
        return await self._all(query, lambda row: QuotaRequest(**{**row, "detail": json.loads(row["detail"])}))


def _insert(connection: Connection, row: dict[str, Any]) -> None:
    try:
        _ADD.run(connection, row)
    except IntegrityError as error:
        raise Conflict("this account, or one with that e-mail address, exists already") from error


def _account_row(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "email": account.email,
        "created_at": account.created_at,
        "limits": json.dumps(dict(account.limits)),
        "version": account.version,
    }


def _account_of(row: Any) -> Account:
    return Account(**{**row, "limits": json.loads(row["limits"])})


def _request_row(request: QuotaRequest) -> dict[str, Any]:
    return {"email": request.email, "created_at": request.created_at, "status": request.status}
