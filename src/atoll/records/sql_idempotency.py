"""Requests that are to have one effect, in SQL; `sql.py` inherits it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from atoll.domain.errors import Unavailable
from atoll.domain.idempotency import SMALL_BYTES, IdempotentRequest
from atoll.records.idempotency import IdempotencyRecords
from atoll.records.prepared import Prepared
from atoll.records.schema import idempotent_requests
from atoll.records.sql_store import SqlStore, put, storable

PRUNE_ROWS = 500
ATTEMPTS = 3

_table = idempotent_requests.c
_mine = (_table.principal == bindparam("of"), _table.key == bindparam("under"))
_PUT = put(idempotent_requests)
_GET = Prepared(select(idempotent_requests).where(*_mine))
_DROP_OLD = Prepared(delete(idempotent_requests).where(*_mine, _table.created_at < bindparam("before")))
_DROP = Prepared(
    delete(idempotent_requests).where(*_mine, _table.server == bindparam("begun_by"), _table.answer.is_(None))
)
_ANSWER = Prepared(
    update(idempotent_requests)
    .where(*_mine, _table.server == bindparam("begun_by"))
    .values(answer=bindparam("new_answer"), answer_bytes=bindparam("new_bytes"))
)
_LARGE = Prepared(
    select(func.coalesce(func.sum(_table.answer_bytes), 0).label("kept")).where(
        _table.owner == bindparam("whose"), _table.answer_bytes > SMALL_BYTES
    )
)


class SqlIdempotency(SqlStore, IdempotencyRecords):
    """See `IdempotencyRecords` for what each method does."""

    async def begin_request(self, request: IdempotentRequest, *, forgotten: datetime) -> IdempotentRequest | None:
        row = storable(
            {
                "principal": request.principal,
                "key": request.key,
                "fingerprint": request.fingerprint,
                "server": request.server,
                "created_at": request.created_at,
                "answer": None,
                "owner": request.owner,
                "answer_bytes": 0,
            }
        )
        which = {"of": request.principal, "under": request.key}

        def begin(connection: Connection) -> dict[str, Any] | None:
            for _ in range(ATTEMPTS):
                if _PUT.run(connection, row) == 1:
                    return None
                if _DROP_OLD.run(connection, which | {"before": forgotten}) == 1 and _PUT.run(connection, row) == 1:
                    return None
                if found := _GET.first(connection, which):
                    return found  # else it was forgotten between two statements, by another server
            raise Unavailable("a request with this Idempotency-Key begins and is forgotten again and again: try again")

        # Not synced: a power cut takes every sandbox with it, and a later write that is synced syncs this one before.
        found = await self._database.write(begin)
        if found is None:
            return None
        return IdempotentRequest(**_known(found))

    async def answer_request(self, request: IdempotentRequest, *, bytes_max: int | None = None) -> None:
        answer = request.answer or b""

        def keep(connection: Connection) -> None:
            kept = answer
            if bytes_max is not None and len(answer) > SMALL_BYTES:
                has: Any = (_LARGE.first(connection, {"whose": request.owner}) or {})["kept"]
                kept = answer if int(has) + len(answer) <= bytes_max else b""
            _ANSWER.run(connection, {**_whose(request), "new_answer": kept, "new_bytes": len(kept)})

        await self._database.write(keep)

    async def forget_request(self, request: IdempotentRequest) -> None:
        await self._database.write(lambda connection: _DROP.run(connection, _whose(request)))

    async def prune_requests(self, before: datetime, *, kept: int | None = None) -> int:
        pruned = await self._forget(before)
        if kept is None:
            return pruned
        crowded: Any = select(_table.owner).group_by(_table.owner).having(func.count() > kept)
        for row in await self._all(crowded, dict):
            newest = select(_table.created_at).where(_table.owner == row["owner"])
            edge: Any = newest.order_by(_table.created_at.desc()).offset(kept).limit(1)
            for last in await self._all(edge, dict):
                pruned += await self._forget(last["created_at"] + timedelta(microseconds=1), row["owner"])
        return pruned

    async def _forget(self, before: datetime, owner: str | None = None) -> int:
        """Those that were begun before, of everybody or of one."""
        old: Any = select(_table.principal, _table.key).where(_table.created_at < before).limit(PRUNE_ROWS)
        if owner is not None:
            old = old.where(_table.owner == owner)
        pruned = 0
        while True:
            rows = [
                {"of": row["principal"], "under": row["key"], "before": before} for row in await self._all(old, dict)
            ]
            if rows:
                await self._database.write(lambda connection, rows=rows: _DROP_OLD.run_many(connection, rows))
            pruned += len(rows)
            if len(rows) < PRUNE_ROWS:
                return pruned


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "answer_bytes"}


def _whose(request: IdempotentRequest) -> dict[str, str]:
    return {"of": request.principal, "under": request.key, "begun_by": request.server}
