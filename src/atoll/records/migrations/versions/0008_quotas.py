"""What has been used, how much of it one may use, and which requests were made once already."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

DEFAULT_MEMORY_BYTES = 512 * 2**20  # of a specification that says nothing of it


def upgrade() -> None:
    op.create_table(
        "quota_overrides",
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("amount", sa.BigInteger),
        sa.PrimaryKeyConstraint("subject", "name", name="pk_quota_overrides"),
    )
    op.create_table(
        "quota_spent",
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("minute", sa.Integer, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", "name", "minute", name="pk_quota_spent"),
    )
    op.create_index("ix_quota_spent_minute", "quota_spent", ["minute"])
    op.create_table(
        "idempotent_requests",
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("server", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("answer_bytes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_idempotent_requests"),
    )
    op.create_index("ix_idempotent_requests_owner_answer_bytes", "idempotent_requests", ["owner", "answer_bytes"])
    op.create_index("ix_idempotent_requests_created_at", "idempotent_requests", ["created_at"])
    op.add_column("sandboxes", sa.Column("credential", sa.String, server_default=sa.text("''"), nullable=False))
    op.add_column("sandboxes", sa.Column("memory_bytes", sa.BigInteger, server_default=sa.text("0"), nullable=False))
    _tell_memory()
    op.create_index(
        "ix_sandboxes_by_credential",
        "sandboxes",
        ["credential", "created_at"],
        sqlite_where=sa.text("credential <> ''"),
        postgresql_where=sa.text("credential <> ''"),
    )


def _tell_memory() -> None:
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT id, spec FROM sandboxes")).all()
    told = [
        {"id": id_, "memory": json.loads(spec).get("resources", {}).get("memory_bytes", DEFAULT_MEMORY_BYTES)}
        for id_, spec in rows
    ]
    if told:
        connection.execute(sa.text("UPDATE sandboxes SET memory_bytes = :memory WHERE id = :id"), told)
