"""Previews in SQL: a part of `SqlRecords`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.preview import Preview
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.previews import PreviewRecords
from atoll.records.rows import Row
from atoll.records.schema import previews, sandboxes
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    lock_owner,
    storable,
    swap,
)

_ADD = Prepared(insert(previews).inline())
_GET = Prepared(select(previews).where(previews.c.id == bindparam("wanted")))
_SWAP = swap(previews, kept={"sandbox_id", "port", "owner", "created_at"})
_DELETE = Prepared(delete(previews).where(previews.c.id == bindparam("of")))


class SqlPreviews(SqlStore, PreviewRecords):
    """See `PreviewRecords` for what each method does."""

    async def add_preview(self, preview: Preview, event: Event, *, quota: int) -> None:
        row = storable(_row(preview))
        happened = event_values(event)
        count = select(func.count()).select_from(previews).where(previews.c.owner == preview.owner)

        def add(connection: Connection) -> None:
            lock_owner(connection, Lock.PREVIEWS, preview.owner)
            kept: int = connection.execute(count).scalar_one()
            if kept >= quota:
                raise QuotaExceeded(f"preview limit reached ({kept}/{quota})")
            try:
                _ADD.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"a preview {preview.id} exists already") from error
            append_event(connection, happened)

        await self._commit(add)

    async def swap_preview(self, preview: Preview, event: Event) -> Preview:
        after = replace(preview, version=preview.version + 1)
        await self._swap(_SWAP, previews, "preview", _row(after), event)
        return after

    async def get_preview(self, preview_id: str) -> Preview | None:
        return await self._one(_GET, _of, wanted=preview_id)

    async def list_previews(
        self, owners: Collection[str], *, within: Collection[str] | None = None, after: str = "", limit: int = 1000
    ) -> list[Preview]:
        query = select(previews).where(previews.c.owner.in_(owners), previews.c.id > after)
        if within is not None:
            query = query.where(previews.c.sandbox_id.in_(within) | previews.c.owner.in_(within))
        return await self._all(query.order_by(previews.c.id).limit(limit), _of)

    async def delete_preview(self, preview_id: str, event: Event) -> None:
        happened = event_values(event)

        def remove(connection: Connection) -> None:
            if _DELETE.run(connection, {"of": preview_id}) != 1:
                raise NotFound(f"preview {preview_id} does not exist")
            append_event(connection, happened)

        await self._commit(remove)

    async def prune_previews(self) -> int:
        there = select(sandboxes.c.id).where(sandboxes.c.removed.is_(False))
        lost = delete(previews).where(previews.c.sandbox_id.not_in(there))
        return await self._commit(lambda connection: connection.execute(lost).rowcount)


def _row(preview: Preview) -> dict[str, Any]:
    names = Preview.__dataclass_fields__
    row: dict[str, Any] = {name: getattr(preview, name) for name in names}
    return row | {"id": preview.id, "metadata": json.dumps(dict(preview.metadata))}


def _of(row: Row) -> Preview:
    fields = dict(row)
    fields.pop("id")
    return Preview(**fields | {"metadata": json.loads(fields["metadata"])})
