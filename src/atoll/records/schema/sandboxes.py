"""The table of sandboxes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text, text

from atoll.records.schema.columns import Utc, metadata, some_rows

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
    Column("credential", String, server_default=text("''"), nullable=False),  # that made it; empty: its owner itself
    Column("memory_bytes", BigInteger, server_default=text("0"), nullable=False),  # of `spec`: what the quota sums
    Column("metadata", Text, server_default=text("'{}'"), nullable=False),  # JSON
    Column("namespace", String),  # of `name`, where that is one of a kind while its sandbox has not ended
    some_rows(
        "ux_sandboxes_by_name",
        "owner",
        "namespace",
        "name",
        where="namespace IS NOT NULL AND ended_at IS NULL AND NOT removed",
        unique=True,
    ),
    Index(
        "ix_sandboxes_by_credential",
        "credential",
        "created_at",
        sqlite_where=text("credential <> ''"),
        postgresql_where=text("credential <> ''"),
    ),
    Index(None, "live", "owner"),
    Index(None, "owner", "created_at"),
    Index(None, "ended_at"),
)
