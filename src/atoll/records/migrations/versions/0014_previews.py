"""Previews: ports of sandboxes that are registered, and who takes over."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "previews",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("sandbox_id", sa.String, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("grant", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("fallback_sandbox_id", sa.String, nullable=True),
        sa.Column("use_fallback", sa.Boolean, nullable=False),
        sa.Column("health_path", sa.Text, nullable=True),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_previews"),
    )
    op.create_index("ix_previews_owner_created_at", "previews", ["owner", "created_at"])
