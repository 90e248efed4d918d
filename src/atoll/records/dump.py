"""The records as one SQLite file, whatever database they are in, and back; `atoll backup` and `atoll restore` call it.

A dump is one state of the database: a server may go on writing meanwhile.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from atoll.domain.errors import Conflict, NotFound, Unavailable
from atoll.records import postgres, sqlite
from atoll.records.copy import STATEMENT_S, batches, check_empty_target, copy_database
from atoll.records.migrate import revision, upgrade
from atoll.records.migrations import HEAD
from atoll.records.schema import TABLES


async def dump_records(url: str, file: Path) -> None:
    """Write the new file. NotFound without a database, Conflict when it needs a migration, Unavailable."""
    try:
        if make_url(url).get_backend_name() == "sqlite":
            await asyncio.to_thread(_copy_file, Path(make_url(url).database or ""), file)
        else:
            await _dump_postgres(url, file)
    except (OSError, DBAPIError, sqlite3.Error) as error:
        raise Unavailable(f"the records could not be read: {getattr(error, 'orig', error)}") from error


async def load_records(file: Path, url: str) -> None:
    """A dump into a database that is empty or, of SQLite, absent. Conflict when it is neither. Takes the file away."""
    if make_url(url).get_backend_name() == "sqlite":
        await asyncio.to_thread(_put_in_place, file, Path(make_url(url).database or ""))
    else:
        await copy_database(f"sqlite:///{file}", url)
        await asyncio.to_thread(file.unlink)


def packs_in(file: Path) -> list[tuple[str, str, int]]:
    """(lineage, id, bytes) of every pack that a dump refers to."""
    with closing(sqlite3.connect(file)) as dump:
        return dump.execute("SELECT lineage, id, bytes FROM packs").fetchall()


async def check_empty(url: str) -> None:
    """Conflict unless a dump can be loaded there; Unavailable when PostgreSQL does not answer."""
    if make_url(url).get_backend_name() != "sqlite":
        await check_empty_target(url)
        return
    path = Path(make_url(url).database or "")
    if await asyncio.to_thread(path.exists):
        raise Conflict(f"there is a database already: {path}")


def _copy_file(source: Path, target: Path) -> None:
    if not source.is_file():
        raise NotFound(f"there is no database {source}")
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)
    # The copy is one file: what reads it later may not write beside it.
    with closing(sqlite3.connect(target)) as there:
        there.execute("PRAGMA journal_mode=DELETE").close()
    engine = sqlite.engine(target)
    try:
        with engine.connect() as connection:
            check_schema(connection)
    finally:
        engine.dispose()


async def _dump_postgres(url: str, file: Path) -> None:
    engine = postgres.engine(url, connections=1, statement_s=STATEMENT_S)
    try:
        async with engine.connect() as source:
            source = await source.execution_options(isolation_level="REPEATABLE READ")
            await source.run_sync(_into_file, file)
    finally:
        await engine.dispose()


def _into_file(source: Connection, file: Path) -> None:
    check_schema(source)
    engine = sqlite.engine(file)
    try:
        with engine.connect() as target:
            sqlite.execute(target, "BEGIN")
            upgrade(target)
            for table in TABLES:
                for batch in batches(source, table):
                    target.execute(insert(table), batch)
            sqlite.execute(target, "COMMIT")
            sqlite.execute(target, "PRAGMA journal_mode=DELETE")
    finally:
        engine.dispose()


def check_schema(connection: Connection) -> None:
    """Conflict unless its schema is this version's."""
    found = revision(connection)
    if found != HEAD:
        raise Conflict(f"the database has schema {found}, not {HEAD}: start this version of Atoll on it once")


def _put_in_place(file: Path, target: Path) -> None:
    if target.exists():
        raise Conflict(f"there is a database already: {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    file.chmod(0o600)
    file.rename(target)
