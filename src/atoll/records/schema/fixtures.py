"""The table of fixtures: what clients of the sidekick API asked to keep in sandboxes."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text

from atoll.records.schema.columns import Utc, metadata

fixtures = Table(
    "fixtures",
    metadata,
    Column("id", String, primary_key=True),
    Column("sandbox", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("spec", Text, nullable=False),  # JSON, as the next
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Index(None, "sandbox", "kind"),
)
