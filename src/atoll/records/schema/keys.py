"""The tables of API keys, what they were used for, and the accounts that they belong to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, String, Table, Text, UniqueConstraint, text

from atoll.records.schema.columns import SERIAL, Utc, metadata

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
    Column("owner", String, server_default=text("''"), nullable=False),
    Column("parent", String),
    Column("resources", Text),  # separated by spaces, sorted; NULL: no bound
    Column("budget_micro_usd", BigInteger),
    Column("plan", String, server_default=text("''"), nullable=False),
    Column("description", Text, server_default=text("''"), nullable=False),
    Column("metadata", Text, server_default=text("'{}'"), nullable=False),  # JSON
    Column("rate_per_s", Double),
    Column("rate_burst", Integer),
    UniqueConstraint("hash"),
    Index(None, "owner"),
    Index(None, "parent"),
)

api_key_usage = Table(
    "api_key_usage",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
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

accounts = Table(
    "accounts",
    metadata,
    Column("id", String, primary_key=True),  # an owner's
    Column("email", String),
    Column("created_at", Utc, nullable=False),
    Column("limits", Text, nullable=False),  # JSON
    Column("version", Integer, nullable=False),
    UniqueConstraint("email"),
)
