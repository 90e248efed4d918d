"""The tables of workspaces: their lineages, revisions, snapshots and shares, and the chunks that they are made of."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from atoll.records.schema.columns import Utc, metadata, some_rows

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
    some_rows("uq_workspaces_name_of_kept", "owner", "name", where="deleted_at IS NULL", unique=True),
    some_rows("ix_workspaces_with_tree", "created_at", where="tree_id IS NOT NULL"),
    some_rows("ix_workspaces_deleted", "created_at", where="deleted_at IS NOT NULL"),
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
    Column("metadata", Text, server_default=text("''"), nullable=False),  # JSON
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
