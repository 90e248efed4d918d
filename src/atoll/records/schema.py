"""The tables, as SQLAlchemy Core metadata; equal to the sum of the migrations, by a test.

`sql.py` and `copy.py` build their statements from it; `rows.py` says how objects become rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Utc(TypeDecorator[datetime]):
    """A moment, in UTC on the way in and on the way out: timestamptz in PostgreSQL, sortable text in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored moment needs a time zone")
        value = value.astimezone(UTC)
        # SQLite's text has no zone: mixed forms would not sort.
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only where the column is an INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String),
    Column("runtime", String, nullable=False),
    Column("state", String, nullable=False),
    Column("live", Boolean, nullable=False),  # derived from `state`: what the quota counts
    Column("removed", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("started_at", Utc),
    Column("ended_at", Utc),
    Column("exit_code", Integer),
    Column("exit_signal", Integer),
    Column("reason", String),
    Column("spec", Text, nullable=False),  # JSON, as the next two
    Column("handle", Text),
    Column("usage", Text, nullable=False),
    Index(None, "live", "owner"),
    Index(None, "owner", "created_at"),
    Index(None, "ended_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("prefix", String, nullable=False),
    Column("name", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("scopes", String, nullable=False),  # separated by spaces, sorted
    Column("version", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("revoked_at", Utc),
    Column("last_used_at", Utc),
    UniqueConstraint("hash"),
)

api_key_usage = Table(
    "api_key_usage",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("key_id", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("method", String, nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("at", Utc, nullable=False),
    Column("ip_address", String),
    Column("user_agent", String),
    Index(None, "key_id", "at"),
    Index(None, "at"),
)

events = Table(
    "events",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("at", Utc, nullable=False),
    Column("action", String, nullable=False),
    Column("target", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("request_id", String),
    Column("detail", Text, nullable=False),  # JSON
    Index(None, "tenant", "id"),
    Index(None, "target", "id"),
    sqlite_autoincrement=True,  # an event's id is never given twice
)

# In the order in which rows can be copied.
TABLES = (sandboxes, api_keys, api_key_usage, events)
