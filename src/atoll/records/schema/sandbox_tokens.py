"""The table of sandbox tokens, credentials for single sandboxes."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, Text, UniqueConstraint

from atoll.records.schema.columns import Utc, metadata

sandbox_tokens = Table(
    "sandbox_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("sandbox", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("maker", String, nullable=False),
    Column("credential", String, nullable=False),
    Column("credential_hash", String(64), nullable=False),
    Column("login", String, nullable=False),
    Column("account_kind", String, nullable=False),
    Column("plan", String, nullable=False),
    Column("scopes", String, nullable=False),  # separated by spaces, sorted
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("description", Text, nullable=False),
    Column("parent", String, nullable=False),
    UniqueConstraint("hash"),
    Index(None, "sandbox", "kind"),
    Index(None, "expires_at"),
)
