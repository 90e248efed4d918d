"""Names of sandboxes in their owners' namespaces, and the tokens of single sandboxes."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

NAMED = sa.text("namespace IS NOT NULL AND ended_at IS NULL AND NOT removed")


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("metadata", sa.Text, server_default=sa.text("'{}'"), nullable=False))
    op.add_column("sandboxes", sa.Column("namespace", sa.String))
    op.create_index(
        "ux_sandboxes_by_name",
        "sandboxes",
        ["owner", "namespace", "name"],
        unique=True,
        sqlite_where=NAMED,
        postgresql_where=NAMED,
    )
    op.add_column("snapshots", sa.Column("metadata", sa.Text, server_default=sa.text("''"), nullable=False))
    op.create_table(
        "sandbox_tokens",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("sandbox", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("maker", sa.String, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("credential_hash", sa.String(64), nullable=False),
        sa.Column("login", sa.String, nullable=False),
        sa.Column("account_kind", sa.String, nullable=False),
        sa.Column("plan", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("parent", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sandbox_tokens"),
        sa.UniqueConstraint("hash", name="uq_sandbox_tokens_hash"),
    )
    op.create_index("ix_sandbox_tokens_sandbox_kind", "sandbox_tokens", ["sandbox", "kind"])
    op.create_index("ix_sandbox_tokens_expires_at", "sandbox_tokens", ["expires_at"])
