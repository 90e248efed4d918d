"""Workspaces: lineages, workspaces, their revisions, snapshots and shares, and where chunks lie."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _lineages()
    _workspaces()
    _revisions()
    _snapshots()
    _shares()
    _packs()
    _chunks()


def _moment() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _some(name: str, columns: list[str], where: str, unique: bool = False) -> None:
    op.create_index(
        name, "workspaces", columns, unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def _lineages() -> None:
    op.create_table(
        "lineages",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("vault", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineages"),
    )
    op.create_index("ix_lineages_created_at", "lineages", ["created_at"])


def _workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("lineage", sa.String, nullable=False),
        sa.Column("head", sa.String, nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("updated_at", _moment(), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("quota_bytes", sa.BigInteger, nullable=False),
        sa.Column("quota_inodes", sa.BigInteger, nullable=False),
        sa.Column("runtime", sa.String),
        sa.Column("tree_id", sa.String),
        sa.Column("sandbox_id", sa.String),
        sa.Column("sandbox_config", sa.Text),
        sa.Column("forked_from", sa.String),
        sa.Column("automatic", sa.Boolean, nullable=False),
        sa.Column("deleted_at", _moment()),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sa.ForeignKeyConstraint(["lineage"], ["lineages.id"], name="fk_workspaces_lineage"),
    )
    _some("uq_workspaces_name_of_kept", ["owner", "name"], "deleted_at IS NULL", unique=True)
    _some("ix_workspaces_with_tree", ["created_at"], "tree_id IS NOT NULL")
    _some("ix_workspaces_deleted", ["created_at"], "deleted_at IS NOT NULL")
    op.create_index("ix_workspaces_owner_created_at", "workspaces", ["owner", "created_at"])
    op.create_index("ix_workspaces_created_at", "workspaces", ["created_at"])
    op.create_index("ix_workspaces_lineage", "workspaces", ["lineage"])


def _revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("lineage", sa.String, nullable=False),
        sa.Column("tree", sa.String, nullable=False),
        sa.Column("parent", sa.String),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("merged", sa.String),
        sa.Column("state", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_revisions_workspace"),
        sa.ForeignKeyConstraint(["lineage"], ["lineages.id"], name="fk_revisions_lineage"),
        sa.UniqueConstraint("workspace", "number", name="uq_revisions_workspace_number"),
    )
    op.create_index("ix_revisions_lineage_number_id", "revisions", ["lineage", "number", "id"])
    op.create_index("ix_revisions_number_id", "revisions", ["number", "id"])


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("revision", sa.String, nullable=False),
        sa.Column("lineage", sa.String, nullable=False),
        sa.Column("tree", sa.String, nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("name", sa.String),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("owner", "id", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_snapshots_workspace"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.id"], name="fk_snapshots_revision"),
        sa.ForeignKeyConstraint(["lineage"], ["lineages.id"], name="fk_snapshots_lineage"),
        sa.UniqueConstraint("workspace", "name", name="uq_snapshots_workspace_name"),
    )
    for columns in (["workspace", "created_at"], ["owner", "created_at"], ["lineage", "created_at"]):
        op.create_index(f"ix_snapshots_{'_'.join(columns)}", "snapshots", columns)
    op.create_index("ix_snapshots_created_at", "snapshots", ["created_at"])
    op.create_index("ix_snapshots_revision", "snapshots", ["revision"])


def _shares() -> None:
    op.create_table(
        "shares",
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("permission", sa.String, nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("workspace", "principal", name="pk_shares"),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.id"], name="fk_shares_workspace"),
    )
    op.create_index("ix_shares_principal", "shares", ["principal"])


def _packs() -> None:
    op.create_table(
        "packs",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("lineage", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_packs"),
        sa.ForeignKeyConstraint(["lineage"], ["lineages.id"], name="fk_packs_lineage"),
    )
    op.create_index("ix_packs_lineage_id", "packs", ["lineage", "id"])


def _chunks() -> None:
    op.create_table(
        "chunks",
        sa.Column("lineage", sa.String, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("pack", sa.String, nullable=False),
        sa.Column("offset", sa.Integer, nullable=False),
        sa.Column("stored_bytes", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("lineage", "id", name="pk_chunks"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_chunks_pack", "chunks", ["pack"])
