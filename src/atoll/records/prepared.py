"""Statements that every request runs, compiled when they are first used: on SQLite they go straight to the driver.

`sql.py` declares them. SQLAlchemy's own execution costs several times what SQLite itself needs for one row; in a
transaction of three statements that is most of a millisecond. On PostgreSQL, where the network decides, they run
as usual.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

_DIALECT = sqlite.dialect(paramstyle="qmark")

Processor = Callable[[Any], Any] | None
Values = Mapping[str, Any]


class Prepared:
    """One statement; `values` name its bound parameters. Errors are SQLAlchemy's, without the values.

    `on_postgres` is its other form where the two databases differ.
    """

    def __init__(self, statement: Insert | Update | Delete | Select[Any], *, on_postgres: Insert | None = None) -> None:
        self._statement = statement if on_postgres is None else on_postgres
        self._for_sqlite = statement

    @cached_property
    def _on_sqlite(self) -> _Compiled:
        return _Compiled(self._for_sqlite)

    def run(self, connection: Connection, values: Values) -> int:
        """Execute; how many rows it changed."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, values).rowcount
        cursor = self._execute(connection, values)
        try:
            return cursor.rowcount
        finally:
            cursor.close()

    def run_many(self, connection: Connection, rows: Iterable[Values]) -> None:
        """Execute once for each of them."""
        if connection.dialect.name != "sqlite":
            if listed := list(rows):
                connection.execute(self._statement, listed)
            return
        raw: Any = connection.connection.driver_connection
        try:
            raw.executemany(self._on_sqlite.text, map(self._on_sqlite.bound, rows)).close()
        except sqlite3.Error as error:
            raise translated(error, self._on_sqlite.text) from error

    def first(self, connection: Connection, values: Values) -> dict[str, Any] | None:
        """The first row by column names, or None."""
        if connection.dialect.name != "sqlite":
            found = connection.execute(self._statement, values).mappings().first()
            return None if found is None else dict(found)
        cursor = self._execute(connection, values)
        try:
            row = cursor.fetchone()
        finally:
            cursor.close()
        if row is None:
            return None
        return {
            name: value if process is None else process(value)
            for (name, process), value in zip(self._on_sqlite.results, row, strict=True)
        }

    def _execute(self, connection: Connection, values: Values) -> sqlite3.Cursor:
        raw: Any = connection.connection.driver_connection
        compiled = self._on_sqlite
        try:
            return raw.execute(compiled.text, compiled.bound(values))
        except sqlite3.Error as error:
            raise translated(error, compiled.text) from error


class _Compiled:
    """A statement in SQLite's words, with how its values go in and its columns come out."""

    __slots__ = ("_places", "results", "text")

    def __init__(self, statement: Insert | Update | Delete | Select[Any]) -> None:
        compiled = statement.compile(
            dialect=_DIALECT, column_keys=_columns(statement) if isinstance(statement, Insert) else None
        )
        self.text = compiled.string
        constants = compiled.params
        self._places: list[tuple[str, Processor, Any]] = []
        for name in compiled.positiontup or ():
            kind = compiled.binds[name].type.dialect_impl(_DIALECT)
            self._places.append((name, kind.bind_processor(_DIALECT), constants.get(name)))
        self.results: list[tuple[str, Processor]] = []
        if isinstance(statement, Select):
            for column in statement.selected_columns:
                kind = column.type.dialect_impl(_DIALECT)
                self.results.append((str(column.key), kind.result_processor(_DIALECT, None)))

    def bound(self, values: Values) -> list[Any]:
        return [
            value if process is None else process(value)
            for name, process, constant in self._places
            for value in (values.get(name, constant),)
        ]


def translated(error: sqlite3.Error, statement: str) -> DBAPIError:
    """SQLAlchemy's error for one of the driver's."""
    kind = DBAPIError
    if isinstance(error, sqlite3.IntegrityError):
        kind = IntegrityError
    elif isinstance(error, sqlite3.OperationalError):
        kind = OperationalError
    return kind(statement, None, error)


def _columns(statement: Insert) -> list[str]:
    # All but the numbers that the database gives.
    return [str(c.key) for c in statement.table.columns if c.autoincrement is not True]
