"""Counters that servers share, a key's own rate, and what account holders say of themselves and ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "rates",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("spent", sa.Double, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rates"),
    )
    op.add_column("api_keys", sa.Column("rate_per_s", sa.Double))
    op.add_column("api_keys", sa.Column("rate_burst", sa.Integer))
    op.create_table(
        "accounts",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("email", sa.String),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("email", name="uq_accounts_email"),
    )
    op.create_table(
        "quota_requests",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quota_requests"),
        sqlite_autoincrement=True,
    )
