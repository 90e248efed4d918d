"""Tasks, what happened in them, and the threads that they continue."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("credential", sa.String, nullable=False),
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("thread", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("end", sa.String),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("sandbox", sa.String),
        sa.Column("process", sa.String),
        sa.Column("read_offset", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.Text, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Column("internal", sa.Boolean, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("claimed_by", sa.String, nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("cancel_asked", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
    )
    op.create_index("ix_tasks_owner_created_at", "tasks", ["owner", "created_at"])
    op.create_index("ix_tasks_thread_created_at", "tasks", ["thread", "created_at"])
    op.create_index("ix_tasks_workspace_created_at", "tasks", ["workspace", "created_at"])
    op.create_index("ix_tasks_ended_at", "tasks", ["ended_at"])
    op.create_index(
        "ix_tasks_live",
        "tasks",
        ["owner", "created_at"],
        sqlite_where=sa.text("live"),
        postgresql_where=sa.text("live"),
    )
    op.create_table(
        "task_events",
        sa.Column("task", sa.String, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("task", "seq", name="pk_task_events"),
    )
    op.create_table(
        "threads",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("workspace", sa.String, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("agent_thread", sa.String, nullable=False),
        sa.Column("tasks", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_threads"),
    )
    op.create_index("ix_threads_owner_last_at", "threads", ["owner", "last_at"])
