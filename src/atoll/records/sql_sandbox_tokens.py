"""Sandbox tokens in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.key import KeyKind, Scope
from atoll.domain.sandbox_token import SandboxToken, TokenKind
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.rows import Row
from atoll.records.sandbox_tokens import SandboxTokenRecords
from atoll.records.schema import sandbox_tokens
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import SqlStore, event_values, lock_owner, storable

_CODED = frozenset({"kind", "account_kind", "scopes"})
_ADD = Prepared(insert(sandbox_tokens).inline())
_GET = Prepared(select(sandbox_tokens).where(sandbox_tokens.c.id == bindparam("wanted")))
_FIND = Prepared(select(sandbox_tokens).where(sandbox_tokens.c.hash == bindparam("wanted")))
_DELETE = Prepared(delete(sandbox_tokens).where(sandbox_tokens.c.id == bindparam("of")))
_EXPIRED = Prepared(
    delete(sandbox_tokens).where(
        sandbox_tokens.c.sandbox == bindparam("of"), sandbox_tokens.c.expires_at <= bindparam("at")
    )
)


class SqlSandboxTokens(SqlStore, SandboxTokenRecords):
    """See `SandboxTokenRecords` for what each method does."""

    async def add_sandbox_token(self, token: SandboxToken, event: Event, *, quota: int) -> None:
        row, happened = storable(_row(token)), event_values(event)

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.SANDBOX_TOKENS, token.sandbox)
            _insert(connection, token, row, quota)
            append_event(connection, happened)

        await self._commit(add)

    async def redeem_sandbox_token(
        self, link_id: str, token: SandboxToken, events: Sequence[Event], *, quota: int
    ) -> None:
        row, happened = storable(_row(token)), [event_values(event) for event in events]

        def redeem(connection: Connection) -> None:
            lock_owner(connection, Lock.SANDBOX_TOKENS, token.sandbox)
            if _DELETE.run(connection, {"of": link_id}) != 1:
                raise NotFound(f"sandbox token {link_id} does not exist")
            _insert(connection, token, row, quota)
            for one in happened:
                append_event(connection, one)

        await self._commit(redeem)

    async def find_sandbox_token(self, token_hash: str) -> SandboxToken | None:
        return await self._one(_FIND, _of, wanted=token_hash)

    async def get_sandbox_token(self, token_id: str) -> SandboxToken | None:
        return await self._one(_GET, _of, wanted=token_id)

    async def list_sandbox_tokens(self, sandbox_id: str, kind: TokenKind) -> list[SandboxToken]:
        query = select(sandbox_tokens).order_by(sandbox_tokens.c.created_at, sandbox_tokens.c.id)
        same = (sandbox_tokens.c.sandbox == sandbox_id) & (sandbox_tokens.c.kind == kind.value)
        return await self._all(query.where(same), _of)

    async def delete_sandbox_token(self, token_id: str, event: Event) -> None:
        happened = event_values(event)

        def remove(connection: Connection) -> None:
            if _DELETE.run(connection, {"of": token_id}) != 1:
                raise NotFound(f"sandbox token {token_id} does not exist")
            append_event(connection, happened)

        await self._commit(remove)

    async def prune_sandbox_tokens(self, expired_before: datetime) -> int:
        old = delete(sandbox_tokens).where(sandbox_tokens.c.expires_at < expired_before)
        return await self._database.write(lambda connection: connection.execute(old).rowcount)


def _insert(connection: Connection, token: SandboxToken, row: dict[str, Any], quota: int) -> None:
    _EXPIRED.run(connection, {"of": token.sandbox, "at": token.created_at})
    same = (sandbox_tokens.c.sandbox == token.sandbox) & (sandbox_tokens.c.kind == token.kind.value)
    kept: int = connection.execute(select(func.count()).select_from(sandbox_tokens).where(same)).scalar_one()
    if kept >= quota:
        raise QuotaExceeded(f"{token.kind} token limit of the sandbox reached ({kept}/{quota})")
    try:
        _ADD.run(connection, row)
    except IntegrityError as error:
        raise Conflict(f"a sandbox token {token.id} exists already") from error


def _row(token: SandboxToken) -> dict[str, Any]:
    plain = {name: getattr(token, name) for name in SandboxToken.__dataclass_fields__ if name not in _CODED}
    coded = {"kind": token.kind.value, "account_kind": token.account_kind.value}
    return plain | coded | {"scopes": " ".join(sorted(token.scopes))}


def _of(row: Row) -> SandboxToken:
    plain = {name: value for name, value in row.items() if name not in _CODED}
    return SandboxToken(
        kind=TokenKind(row["kind"]),
        account_kind=KeyKind(row["account_kind"]),
        scopes=frozenset(map(Scope, row["scopes"].split())),
        **plain,
    )
