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
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
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
    Column("credential", String, server_default=text("''"), nullable=False),  # that made it; empty: its owner itself
    Column("memory_bytes", BigInteger, server_default=text("0"), nullable=False),  # of `spec`: what the quota sums
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
    Column("credential", String),
    Column("address", String),
    Column("seq", BigInteger, nullable=False),  # of its tenant
    Column("previous", LargeBinary, nullable=False),  # the hash of the event with the seq before
    Column("hash", LargeBinary, nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "target", "id"),
    Index(None, "tenant", "seq", unique=True),
    sqlite_autoincrement=True,  # an event's id is never given twice
)

# The last event of each tenant's chain.
event_heads = Table(
    "event_heads",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

audit_keys = Table(
    "audit_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("public", LargeBinary, nullable=False),
    Column("vault", String, nullable=False),
    Column("key", LargeBinary, nullable=False),  # wrapped
    Column("created_at", Utc, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Utc, nullable=False),
    Column("key_id", String, nullable=False),
    Column("previous", LargeBinary, nullable=False),  # the hash of the checkpoint before
    Column("hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)

# The heads that a checkpoint signs: of the chains that grew since the one before.
checkpoint_heads = Table(
    "checkpoint_heads",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("checkpoint", BigInteger, nullable=False),
    Index(None, "checkpoint"),
    sqlite_with_rowid=False,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("url", Text, nullable=False),
    Column("actions", Text, nullable=False),  # separated by spaces
    Column("description", Text, nullable=False),
    Column("everyone", Boolean, nullable=False),
    Column("vault", String, nullable=False),
    Column("secret", LargeBinary, nullable=False),  # wrapped
    Column("created_at", Utc, nullable=False),
    Column("disabled_at", Utc),
    Column("disabled_why", Text),
    Column("version", Integer, nullable=False),
    Column("maker", String, nullable=False),
    Column("credential", String, nullable=False),
    # From here on the deliverer's, whoever holds the lease.
    Column("failures", Integer, nullable=False),
    Column("failing_since", Utc),
    Column("next_at", Utc),
    Column("delivered_at", Utc),
    Column("last_error", Text),
    Column("lease_holder", String),
    Column("leased_until", Utc),
    Column("leased_at", Utc),
    Index(None, "owner", "created_at"),
)

webhook_cursors = Table(
    "webhook_cursors",
    metadata,
    Column("webhook", String, primary_key=True),
    Column("tenant", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),  # delivered up to here
    sqlite_with_rowid=False,
)

owners = Table(
    "owners",
    metadata,
    Column("id", String, primary_key=True),
    Column("stored_bytes", BigInteger, nullable=False),  # of the packs of its lineages, as those are now
)

lineages = Table(
    "lineages",
    metadata,
    Column("id", String, primary_key=True),
    Column("vault", String, nullable=False),
    Column("key", LargeBinary),  # wrapped; NULL: shredded
    Column("created_at", Utc, nullable=False),
    Column("owner", String, server_default=text("''"), nullable=False),
    Index(None, "created_at"),
)


def _some(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of the rows that `where` holds for, in both kinds of database."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("name", String, nullable=False),
    Column("lineage", String, ForeignKey("lineages.id"), nullable=False),
    Column("head", String, nullable=False),  # no foreign key: the two would refer to each other
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Column("description", Text),
    Column("tags", Text, nullable=False),  # JSON
    Column("quota_bytes", BigInteger, nullable=False),
    Column("quota_inodes", BigInteger, nullable=False),
    Column("runtime", String),
    Column("tree_id", String),
    Column("sandbox_id", String),
    Column("sandbox_config", Text),  # sealed
    Column("forked_from", String),
    Column("automatic", Boolean, nullable=False),
    Column("deleted_at", Utc),
    Column("version", Integer, nullable=False),
    _some("uq_workspaces_name_of_kept", "owner", "name", where="deleted_at IS NULL", unique=True),
    _some("ix_workspaces_with_tree", "created_at", where="tree_id IS NOT NULL"),
    _some("ix_workspaces_deleted", "created_at", where="deleted_at IS NOT NULL"),
    Index(None, "owner", "created_at"),
    Index(None, "created_at"),
    Index(None, "lineage"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("id", String, primary_key=True),
    Column("workspace", String, ForeignKey("workspaces.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("lineage", String, ForeignKey("lineages.id"), nullable=False),
    Column("tree", String, nullable=False),
    Column("parent", String),  # may be another workspace's, and gone
    Column("reason", String, nullable=False),
    Column("actor", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("message", Text),
    Column("merged", String),
    Column("state", String, nullable=False),
    UniqueConstraint("workspace", "number"),
    Index(None, "lineage", "number", "id"),
    Index(None, "number", "id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("owner", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("workspace", String, ForeignKey("workspaces.id"), nullable=False),
    Column("revision", String, ForeignKey("revisions.id"), nullable=False),
    Column("lineage", String, ForeignKey("lineages.id"), nullable=False),
    Column("tree", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("name", String),
    Column("entries", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("kept", Boolean, nullable=False),
    UniqueConstraint("workspace", "name"),
    Index(None, "workspace", "created_at"),
    Index(None, "owner", "created_at"),
    Index(None, "lineage", "created_at"),
    Index(None, "created_at"),
    Index(None, "revision"),
)

shares = Table(
    "shares",
    metadata,
    Column("workspace", String, ForeignKey("workspaces.id"), primary_key=True),
    Column("principal", String, primary_key=True),
    Column("permission", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index(None, "principal"),
)

packs = Table(
    "packs",
    metadata,
    Column("id", String, primary_key=True),
    Column("lineage", String, ForeignKey("lineages.id"), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index(None, "lineage", "id"),
)

# Millions of rows: no row number beside the key, and no foreign key, whose check would cost more than the insert.
chunks = Table(
    "chunks",
    metadata,
    Column("lineage", String, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("pack", String, nullable=False),
    Column("offset", Integer, nullable=False),
    Column("stored_bytes", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Index(None, "pack"),
    sqlite_with_rowid=False,
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

rates = Table(
    "rates",
    metadata,
    Column("name", String, primary_key=True),
    Column("spent", Double, nullable=False),
    Column("since", Double, nullable=False),  # seconds of the Unix epoch, by the database's clock
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

quota_requests = Table(
    "quota_requests",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("email", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("status", String, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,
)

quota_overrides = Table(
    "quota_overrides",
    metadata,
    Column("subject", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("amount", BigInteger),  # NULL: no bound
)

quota_spent = Table(
    "quota_spent",
    metadata,
    Column("subject", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("minute", Integer, primary_key=True),  # since 1970
    Column("amount", BigInteger, nullable=False),
    Index(None, "minute"),
)

idempotent_requests = Table(
    "idempotent_requests",
    metadata,
    Column("principal", String, primary_key=True),
    Column("key", String(64), primary_key=True),  # the hash of the client's
    Column("fingerprint", String(64), nullable=False),  # of what was asked
    Column("server", String, nullable=False),  # the life of a server that began it
    Column("created_at", Utc, nullable=False),
    Column("answer", LargeBinary),  # sealed under the client's key; NULL: there is none yet
    Column("owner", String, nullable=False),
    Column("answer_bytes", Integer, nullable=False),
    Index(None, "created_at"),
    Index(None, "owner", "answer_bytes"),
)

# In the order in which rows can be copied: what others refer to comes before them.
TABLES = (
    sandboxes,
    api_keys,
    api_key_usage,
    users,
    logins,
    refresh_tokens,
    signing_keys,
    events,
    event_heads,
    audit_keys,
    checkpoints,
    checkpoint_heads,
    webhooks,
    webhook_cursors,
    owners,
    lineages,
    workspaces,
    revisions,
    snapshots,
    shares,
    packs,
    chunks,
    groups,
    group_members,
    secrets,
    rates,
    accounts,
    quota_requests,
    quota_overrides,
    quota_spent,
    idempotent_requests,
)
