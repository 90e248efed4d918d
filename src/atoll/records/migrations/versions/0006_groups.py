"""Groups and who belongs to them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("creator", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
    )
    op.create_index("ix_groups_creator", "groups", ["creator"])
    op.create_table(
        "group_members",
        sa.Column("group", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("group", "principal", name="pk_group_members"),
        sa.ForeignKeyConstraint(["group"], ["groups.id"], name="fk_group_members_group"),
    )
    op.create_index("ix_group_members_principal", "group_members", ["principal"])
