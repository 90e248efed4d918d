"""Whose a key is, what made it, and what it may reach."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for column in (
        sa.Column("owner", sa.String, server_default=sa.text("''"), nullable=False),
        sa.Column("parent", sa.String),
        sa.Column("resources", sa.Text),
        sa.Column("budget_micro_usd", sa.BigInteger),
        sa.Column("plan", sa.String, server_default=sa.text("''"), nullable=False),
        sa.Column("description", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("metadata", sa.Text, server_default=sa.text("'{}'"), nullable=False),
    ):
        op.add_column("api_keys", column)
    op.execute("UPDATE api_keys SET owner = id")
    op.create_index("ix_api_keys_owner", "api_keys", ["owner"])
    op.create_index("ix_api_keys_parent", "api_keys", ["parent"])
