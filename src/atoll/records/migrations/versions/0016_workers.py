"""The marketplace: workers, their versions, and who installed, ran or rated them."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "workers",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        *_details(moment),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("sought", sa.Text, nullable=False),
        sa.Column("installs", sa.Integer, nullable=False),
        sa.Column("ratings", sa.Integer, nullable=False),
        sa.Column("stars", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_index("ix_workers_author_name", "workers", ["author", "name"], unique=True)
    op.create_index("ix_workers_installs", "workers", ["installs"])
    op.create_table(
        "worker_versions",
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        *_details(moment),
        sa.PrimaryKeyConstraint("worker", "number", name="pk_worker_versions"),
    )
    op.create_index("ix_worker_versions_worker_version", "worker_versions", ["worker", "version"], unique=True)
    op.create_table(
        "worker_uses",
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("installed_at", moment),
        sa.Column("ran_at", moment),
        sa.Column("stars", sa.Integer),
        sa.PrimaryKeyConstraint("worker", "principal", name="pk_worker_uses"),
    )


def _details(moment: sa.DateTime) -> list[sa.Column[Any]]:
    return [
        sa.Column("version", sa.String, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("endpoint_url", sa.Text),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("template", sa.String, nullable=False),
        sa.Column("pricing", sa.Text, nullable=False),
        sa.Column("price_micro_usd", sa.BigInteger, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
    ]
