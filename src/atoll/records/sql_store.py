"""What the parts of the store in SQL are made of: reading one row, compare-and-set, an event beside each change.

`sql.py` and its neighbours `sql_workspaces.py`, `sql_revisions.py` and `sql_chunks.py` are written in these words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from atoll.domain import crash
from atoll.domain.errors import Conflict, InvalidInput, NotFound, StaleVersion
from atoll.domain.event import Event
from atoll.records.database import Database, Work
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.rows import event_row
from atoll.records.sql_chain import append_event

T = TypeVar("T")


PIECE = 500  # values in one IN list: statements have a limit of them, and few forms are compiled
# Whoever adds something of that kind for the same owner waits here until this transaction ends.
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(:kind, hashtext(:owner))")


class SqlStore:
    """A database, and the ways in which every part of the store uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def _one(self, query: Prepared, make: Callable[[dict[str, Any]], T], **wanted: Any) -> T | None:
        """The object of the first row; None when there is none, or could not be."""
        if any(isinstance(value, str) and not is_storable(value) for value in wanted.values()):
            return None
        row = await self._database.read(lambda connection: query.first(connection, wanted))
        return None if row is None else make(row)

    async def _all(self, query: Select[Any], make: Callable[[Any], T]) -> list[T]:
        """The objects of all rows."""

        def read(connection: Connection) -> list[T]:
            return [make(row) for row in connection.execute(query).mappings()]

        return await self._database.read(read)

    async def _commit(self, work: Work[T], *, durable: bool = True) -> T:
        """One mutation: `work` writes it with its event. Durable, unless losing it to a power cut loses nothing."""

        def change(connection: Connection) -> T:
            result = work(connection)
            crash.point("records.write.before_commit")
            return result

        result = await self._database.write(change, durable=durable)
        crash.point("records.write.after_commit")
        return result

    async def _swap(
        self,
        statement: Prepared,
        table: Table,
        what: str,
        after: dict[str, Any],
        event: Event | None,
        *,
        durable: bool = True,
    ) -> None:
        """Compare-and-set of one row by a statement of `swap`, with its event. NotFound, StaleVersion."""
        values = swap_values(after, after["version"] - 1)
        happened = None if event is None else event_values(event)

        def change(connection: Connection) -> None:
            if statement.run(connection, values) != 1:
                raise not_swapped(connection, table, what, after["id"])
            if happened is not None:
                append_event(connection, happened)

        await self._commit(change, durable=durable)


def event_values(event: Event) -> dict[str, Any]:
    """What `append_event` takes."""
    return storable(event_row(event))


def swap(table: Table, kept: set[str]) -> Prepared:
    """The update of a whole row, but for `kept`, if its version still is the one that was read."""
    names = [name for name in table.c.keys() if name not in {"id", *kept}]  # noqa: SIM118
    return Prepared(
        update(table)
        .where(table.c.id == bindparam("of"), table.c.version == bindparam("read_version"))
        .values({name: bindparam(f"new_{name}") for name in names})
    )


def swap_values(row: dict[str, Any], read_version: int) -> dict[str, Any]:
    """What such an update needs."""
    values = {f"new_{name}": value for name, value in storable(row).items()}
    return values | {"of": row["id"], "read_version": read_version}


def not_swapped(connection: Connection, table: Table, what: str, wanted: str) -> Conflict | NotFound:
    """Why such an update changed nothing."""
    found = connection.execute(select(table.c.version).where(table.c.id == wanted)).scalar()
    if found is None:
        return NotFound(f"{what} {wanted} does not exist")
    return StaleVersion(f"{what} {wanted} changed since it was read")


def put(table: Table, *updated: str) -> Prepared:
    """The insert of a row; where its key is taken, these columns of that one are updated, or it stays as it is."""
    key = [column.name for column in table.primary_key]

    def made(kind: Any) -> Any:
        statement = kind(table).inline()
        if not updated:
            return statement.on_conflict_do_nothing(index_elements=key)
        values = {name: statement.excluded[name] for name in updated}
        return statement.on_conflict_do_update(index_elements=key, set_=values)

    return Prepared(made(sqlite.insert), on_postgres=made(postgresql.insert))


def lock_owner(connection: Connection, kind: Lock, owner: str) -> None:
    """Let nobody else count what `owner` has of this kind until the transaction ends. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_OWNER, {"kind": int(kind), "owner": owner})


def owned_by(table: Table, owner: str | tuple[str, ...]) -> ColumnElement[bool]:
    """That a row is the owner's, or one of the owners'."""
    return table.c.owner == owner if isinstance(owner, str) else table.c.owner.in_(owner)


def pieces(values: Sequence[T], size: int = PIECE) -> Iterator[Sequence[T]]:
    """The values, some at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def storable(row: dict[str, Any]) -> dict[str, Any]:
    """The row itself. InvalidInput for text that not every database can hold."""
    for name, value in row.items():
        if isinstance(value, str) and not is_storable(value):
            wrong = "must not contain NUL" if "\0" in value else "is not valid text"
            raise InvalidInput(f"{name} {wrong}", field=name)
    return row


def is_storable(value: str) -> bool:
    if "\0" in value:
        return False  # PostgreSQL has no such text
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
