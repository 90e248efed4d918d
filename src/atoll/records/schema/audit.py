"""The tables of the audit trail: chains of events, checkpoints over them, and the webhooks that are told."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from atoll.records.schema.columns import SERIAL, Utc, metadata

events = Table(
    "events",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
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
