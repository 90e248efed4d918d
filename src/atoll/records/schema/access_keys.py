"""The table of access keys, with which clients of object stores sign for an API key."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, String, Table

from atoll.records.schema.columns import Utc, metadata

access_keys = Table(
    "access_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("key", String, nullable=False),
    Column("key_hash", String(64), nullable=False),
    Column("owner", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("vault", String, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # wrapped
    Index(None, "key"),
    Index(None, "owner"),
)
