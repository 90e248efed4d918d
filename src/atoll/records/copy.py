"""Copies a whole SQLite database into an empty PostgreSQL one, for `atoll db copy`.

All in one transaction over there and one snapshot here: a copy that is cut short leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, literal, select, text, tuple_
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from atoll.domain.errors import Conflict, Internal, InvalidInput, NotFound, Unavailable
from atoll.records import postgres, sqlite
from atoll.records.migrate import revision, upgrade
from atoll.records.migrations import HEAD
from atoll.records.schema import TABLES

BATCH_ROWS = 1_000
STATEMENT_S = 600.0

Counts = dict[str, tuple[int, int]]


async def copy_database(source_url: str, target_url: str) -> Counts:
    """Each table's rows here and there, equal by then: {name: (source, target)}.

    No server may be writing to the source: what it wrote later would be missing. NotFound when the source does not
    exist, Conflict when it needs a migration or the target holds rows already, Unavailable when one of them fails.
    """
    path = make_url(source_url).database or ""
    if make_url(source_url).get_backend_name() != "sqlite" or make_url(target_url).get_backend_name() != "postgresql":
        raise InvalidInput("a copy goes from sqlite:///PATH to postgresql://...", field="to")
    if not await asyncio.to_thread(Path(path).is_file):
        raise NotFound(f"there is no database {path}")
    source_engine = sqlite.engine(Path(path))
    target_engine = postgres.engine(target_url, connections=1, statement_s=STATEMENT_S)
    try:
        source = await asyncio.to_thread(_snapshot, source_engine.connect())
        try:
            async with target_engine.begin() as target:
                return await _copy(source, target)
        finally:
            await asyncio.to_thread(source.close)
    except (OSError, DBAPIError) as error:
        raise Unavailable(f"the copy failed, nothing was copied: {getattr(error, 'orig', error)}") from error
    finally:
        await target_engine.dispose()
        await asyncio.to_thread(source_engine.dispose)


async def check_empty_target(url: str) -> None:
    """Conflict when a PostgreSQL database holds rows already, Unavailable when it does not answer."""
    engine = postgres.engine(url, connections=1, statement_s=STATEMENT_S)
    try:
        async with engine.connect() as target:
            if await target.run_sync(revision) is None:
                return
            await _check_empty(target)
    except (OSError, DBAPIError) as error:
        raise Unavailable(f"the database does not answer: {getattr(error, 'orig', error)}") from error
    finally:
        await engine.dispose()


async def _check_empty(target: AsyncConnection) -> None:
    for table in TABLES:
        if await _count(target, table):
            raise Conflict(f"the target holds rows already, in {table.name}: copy into an empty database")


async def _copy(source: Connection, target: AsyncConnection) -> Counts:
    await target.run_sync(upgrade)
    names = ", ".join(table.name for table in TABLES)
    await target.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    await _check_empty(target)
    counts: Counts = {}
    for table in TABLES:
        rows = batches(source, table)
        while batch := await asyncio.to_thread(next, rows, None):
            await target.execute(insert(table), batch)
        here = await asyncio.to_thread(_count_here, source, table)
        counts[table.name] = (here, await _count(target, table))
        await _continue_numbers(target, table)
    if any(here != there for here, there in counts.values()):
        raise Internal(f"the copy is not complete, nothing was copied: {counts}")
    return counts


def _snapshot(source: Connection) -> Connection:
    """The connection, from now on seeing one state of the database."""
    sqlite.execute(source, "BEGIN")
    found = revision(source)
    if found != HEAD:
        source.close()
        raise Conflict(f"the source has schema {found}, not {HEAD}: start this version of Atoll on it once")
    return source


def batches(source: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """All rows of a table in order of their key, a bounded number at a time."""
    # By key, not by one long cursor: a row's text may be large.
    key = list(table.primary_key.columns)
    after: list[Any] | None = None
    while True:
        query = select(table).order_by(*key).limit(BATCH_ROWS)
        if after is not None:
            passed = [literal(value, column.type) for column, value in zip(key, after, strict=True)]
            query = query.where(tuple_(*key) > tuple_(*passed))
        batch = [dict(row) for row in source.execute(query).mappings()]
        if not batch:
            return
        after = [batch[-1][column.name] for column in key]
        yield batch


def _count_here(source: Connection, table: Table) -> int:
    return source.execute(select(func.count()).select_from(table)).scalar_one()


async def _count(target: AsyncConnection, table: Table) -> int:
    return (await target.execute(select(func.count()).select_from(table))).scalar_one()


async def _continue_numbers(target: AsyncConnection, table: Table) -> None:
    """Let the next row of a numbered table take the number after the highest."""
    for column in table.columns:
        if column.autoincrement is True:
            highest = (await target.execute(select(func.max(column)))).scalar()
            await target.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :column), :number, :used)"),
                {"table": table.name, "column": column.name, "number": highest or 1, "used": highest is not None},
            )
