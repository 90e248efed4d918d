"""The first tables: sandboxes, keys with their use, and events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "sandboxes",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("runtime", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("removed", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment),
        sa.Column("exit_code", sa.Integer),
        sa.Column("exit_signal", sa.Integer),
        sa.Column("reason", sa.String),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("handle", sa.Text),
        sa.Column("usage", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
    )
    op.create_index("ix_sandboxes_live_owner", "sandboxes", ["live", "owner"])
    op.create_index("ix_sandboxes_owner_created_at", "sandboxes", ["owner", "created_at"])
    op.create_index("ix_sandboxes_ended_at", "sandboxes", ["ended_at"])

    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
        sa.Column("revoked_at", moment),
        sa.Column("last_used_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )

    op.create_table(
        "api_key_usage",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("status_code", sa.Integer, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("ip_address", sa.String),
        sa.Column("user_agent", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_api_key_usage"),
    )
    op.create_index("ix_api_key_usage_key_id_at", "api_key_usage", ["key_id", "at"])
    op.create_index("ix_api_key_usage_at", "api_key_usage", ["at"])

    op.create_table(
        "events",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_tenant_id", "events", ["tenant", "id"])
    op.create_index("ix_events_target_id", "events", ["target", "id"])
