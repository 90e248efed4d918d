"""The tables of the marketplace; `sql_workers.py` is the only one who writes here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from atoll.records.schema.columns import Utc, metadata


def _details() -> list[Column[Any]]:
    """What each version has of its own."""
    return [
        Column("version", String, nullable=False),
        Column("description", Text, nullable=False),
        Column("tags", Text, nullable=False),  # each between line ends, so that one can be looked for
        Column("endpoint_url", Text),
        Column("command", Text, nullable=False),  # JSON: the argv
        Column("template", String, nullable=False),
        Column("pricing", Text, nullable=False),  # JSON
        Column("price_micro_usd", BigInteger, nullable=False),
        Column("updated_at", Utc, nullable=False),
    ]


workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    Column("author", String, nullable=False),
    Column("name", String, nullable=False),
    *_details(),
    Column("public", Boolean, nullable=False),
    Column("sought", Text, nullable=False),  # the name and the description in one case
    Column("installs", Integer, nullable=False),
    Column("ratings", Integer, nullable=False),
    Column("stars", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index(None, "author", "name", unique=True),
    Index(None, "installs"),
)

worker_versions = Table(
    "worker_versions",
    metadata,
    Column("worker", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1 on
    *_details(),
    Index(None, "worker", "version", unique=True),
)

worker_uses = Table(
    "worker_uses",
    metadata,
    Column("worker", String, primary_key=True),
    Column("principal", String, primary_key=True),
    Column("installed_at", Utc),
    Column("ran_at", Utc),
    Column("stars", Integer),
)

__all__ = ["worker_uses", "worker_versions", "workers"]
