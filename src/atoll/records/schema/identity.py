"""The tables of who there is: users with their logins, groups with their members, and the secrets of both."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from atoll.records.schema.columns import Utc, metadata

users = Table(
    "users",
    metadata,
    Column("id", String, primary_key=True),
    Column("username", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("password_hash", String),
    Column("name", String, nullable=False),
    Column("admin", Boolean, nullable=False),
    Column("issuer", String),
    Column("subject", String),
    Column("disabled_at", Utc),
    Column("welcomed_at", Utc),
    Column("version", Integer, nullable=False),
    UniqueConstraint("username"),
    UniqueConstraint("issuer", "subject"),
)

logins = Table(
    "logins",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, ForeignKey("users.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("reason", String),
    Index(None, "owner", "created_at"),
    Index(None, "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("login", String, ForeignKey("logins.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("used_at", Utc),
    Index(None, "login"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("algorithm", String, nullable=False),
    Column("public", Text, nullable=False),  # PEM
    Column("sealed", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("vault", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("retired_at", Utc),
)

groups = Table(
    "groups",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Column("description", Text),
    Column("version", Integer, nullable=False),
    Column("creator", String, nullable=False),
    Index(None, "creator"),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group", String, ForeignKey("groups.id"), primary_key=True),
    Column("principal", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("added_at", Utc, nullable=False),
    Index(None, "principal"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("vault", String, nullable=False),
    Column("key", LargeBinary, nullable=False),  # wrapped
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("rotated_at", Utc),
    Column("revision", Integer, nullable=False),
    Column("hosts", Text, nullable=False),  # JSON
    Column("description", Text, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("owner", "name"),
)
