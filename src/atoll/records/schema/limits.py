"""The tables of what bounds requests: rates, quotas, requests for more, and those that are to have one effect."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, String, Table, Text

from atoll.records.schema.columns import SERIAL, Utc, metadata

rates = Table(
    "rates",
    metadata,
    Column("name", String, primary_key=True),
    Column("spent", Double, nullable=False),
    Column("since", Double, nullable=False),  # seconds of the Unix epoch, by the database's clock
)

quota_requests = Table(
    "quota_requests",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
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
