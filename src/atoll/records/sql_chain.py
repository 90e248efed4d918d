"""Appends events to their tenants' chains, in the transaction of the change that they tell of.

Everything that writes an event in SQL calls `append_event`; nothing else inserts into `events`, which a test proves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, text

from atoll.domain.event_chain import GENESIS, HASHED, event_hash, moment_text
from atoll.records.prepared import translated

_COLUMNS = (
    "id", "at", "action", "target", "tenant", "actor", "outcome", "request_id", "detail", "credential", "address",
    "seq", "previous", "hash",
)  # fmt: skip
_NAMES = ", ".join(_COLUMNS)

# One writer: what is read here stays true until the transaction ends.
_HEAD_ON_SQLITE = (
    "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'events'), seq, hash"
    " FROM (SELECT 1) LEFT JOIN event_heads ON tenant = ?"
)
_ADD_ON_SQLITE = f"INSERT INTO events ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_MOVE_ON_SQLITE = (
    "INSERT INTO event_heads (tenant, seq, hash) VALUES (?, ?, ?)"
    " ON CONFLICT (tenant) DO UPDATE SET seq = excluded.seq, hash = excluded.hash"
)

# The head's row is locked from here to the end of the transaction: numbers are in the order of the commits. It is the
# last lock that a transaction takes, so that none waits in a circle.
_HEAD_ON_POSTGRES = text(
    "INSERT INTO event_heads (tenant, seq, hash) VALUES (:tenant, 1, :genesis)"
    " ON CONFLICT (tenant) DO UPDATE SET seq = event_heads.seq + 1"
    " RETURNING nextval(pg_get_serial_sequence('events', 'id')) AS id, seq, hash"
)
_ADD_ON_POSTGRES = text(
    f"WITH added AS (INSERT INTO events ({_NAMES}) VALUES ({', '.join(':' + name for name in _COLUMNS)}))"
    " UPDATE event_heads SET hash = :hash WHERE tenant = :tenant"
)


def append_event(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write the event with those `event_values` at the end of its tenant's chain: a transaction's last act."""
    if connection.dialect.name == "sqlite":
        _append_on_sqlite(connection, values)
    else:
        _append_on_postgres(connection, values)


def append_events(connection: Connection, events: Iterable[Mapping[str, Any]]) -> None:
    """Several in one transaction: the heads are locked in one order, so that two servers do not wait in a circle."""
    for values in sorted(events, key=lambda values: values["tenant"]):
        append_event(connection, values)


def _append_on_sqlite(connection: Connection, values: Mapping[str, Any]) -> None:
    driver: Any = connection.connection.driver_connection
    tenant = values["tenant"]
    statement = _HEAD_ON_SQLITE
    try:
        last_id, seq, previous = driver.execute(statement, (tenant,)).fetchone()
        row = _chained(values, (last_id or 0) + 1, (seq or 0) + 1, previous or GENESIS)
        row["at"] = row["at"].replace("T", " ")[:26]  # as the column's type stores it
        statement = _ADD_ON_SQLITE
        driver.execute(statement, [row[name] for name in _COLUMNS]).close()
        statement = _MOVE_ON_SQLITE
        driver.execute(statement, (tenant, row["seq"], row["hash"])).close()
    except sqlite3.Error as error:
        raise translated(error, statement) from error


def _append_on_postgres(connection: Connection, values: Mapping[str, Any]) -> None:
    head = connection.execute(_HEAD_ON_POSTGRES, {"tenant": values["tenant"], "genesis": GENESIS}).one()
    row = _chained(values, head.id, head.seq, head.hash)
    connection.execute(_ADD_ON_POSTGRES, row | {"at": values["at"]})


def _chained(values: Mapping[str, Any], event_id: int, seq: int, previous: bytes) -> dict[str, Any]:
    """The whole row; its moment as text."""
    row = {**values, "id": event_id, "seq": seq, "at": moment_text(values["at"])}
    return row | {"previous": previous, "hash": event_hash(previous, [row[name] for name in HASHED])}
