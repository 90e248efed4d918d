"""Uses in SQL: which there were, and their sums by what they have in common; `sql_ledger.py` inherits it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, func, literal, select

from atoll.domain.errors import InvalidInput
from atoll.domain.ledger import Use
from atoll.records.ledger import LedgerRecords, UseQuery, UseTotal
from atoll.records.ledger_rows import use_of
from atoll.records.schema import ledger_uses
from atoll.records.sql_store import SqlStore

NAMED_BY = ("account", "task", "workspace", "sandbox", "workspace_owner", "model", "kind")
_uses = ledger_uses.c
_SUMS = ("input_tokens", "output_tokens", "cached_tokens", "input_cost", "output_cost", "charged")


class SqlUses(SqlStore, LedgerRecords):
    """See `LedgerRecords` for what each method does."""

    async def list_uses(self, query: UseQuery, *, limit: int = 100, offset: int = 0) -> list[Use]:
        newest = _wanted(select(ledger_uses), query).order_by(_uses.at.desc(), _uses.id.desc())
        return await self._all(newest.limit(limit).offset(offset), use_of)

    async def total_uses(self, query: UseQuery, *, by: str = "", limit: int = 100, offset: int = 0) -> list[UseTotal]:
        def total(connection: Connection) -> list[UseTotal]:
            name = _name(by, connection.dialect.name)
            sums: Select[Any] = select(
                name.label("name"),
                func.count().label("uses"),
                *(func.coalesce(func.sum(_uses[column]), 0).label(column) for column in _SUMS),
                func.min(_uses.at).label("first_at"),
                func.max(_uses.at).label("last_at"),
                func.count(_uses.task.distinct()).label("tasks"),
                func.coalesce(func.sum(_uses.seconds), 0.0).label("seconds"),
            )
            sums = _wanted(sums, query)
            if by:
                dearest = func.sum(_uses.input_cost + _uses.output_cost).desc()
                sums = sums.where(name.is_not(None)).group_by(name)
                sums = sums.order_by(name.desc()) if by == "day" else sums.order_by(dearest, name)
            rows = connection.execute(sums.limit(limit).offset(offset)).mappings()
            return [_total_of(dict(row)) for row in rows]

        return await self._database.read(total)


def _name(by: str, dialect: str) -> ColumnElement[Any]:
    if not by:
        return literal("")
    if by == "day":
        return func.date(_uses.at, type_=String) if dialect == "sqlite" else func.to_char(_uses.at, "YYYY-MM-DD")
    if by not in NAMED_BY:
        raise InvalidInput(f"by is one of {', '.join(NAMED_BY)} and day", field="by")
    return _uses[by]


def _wanted(statement: Select[Any], query: UseQuery) -> Select[Any]:
    for name in ("account", "task", "sandbox", "workspace", "workspace_owner", "internal"):
        value = getattr(query, name)
        if value is not None:
            statement = statement.where(_uses[name] == value)
    if query.kind is not None:
        statement = statement.where(_uses.kind == query.kind.value)
    if query.since is not None:
        statement = statement.where(_uses.at >= query.since)
    if query.until is not None:
        statement = statement.where(_uses.at < query.until)
    return statement


def _total_of(row: dict[str, Any]) -> UseTotal:
    sums: dict[str, Any] = {name: int(row[name]) for name in _SUMS}  # PostgreSQL's are numeric
    return UseTotal(**{**row, **sums})
