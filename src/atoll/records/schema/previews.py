"""The table of previews: registered ports of sandboxes."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text

from atoll.records.schema.columns import Utc, metadata

previews = Table(
    "previews",
    metadata,
    Column("id", String, primary_key=True),
    Column("sandbox_id", String, nullable=False),
    Column("port", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("grant", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("public", Boolean, nullable=False),
    Column("fallback_sandbox_id", String),
    Column("use_fallback", Boolean, nullable=False),
    Column("health_path", Text),
    Column("metadata", Text, nullable=False),  # JSON
    Column("version", Integer, nullable=False),
    Index(None, "owner", "created_at"),
)
