"""What clients of the sidekick API asked to keep in a sandbox: servers, watchers, signals, overlays."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "fixtures",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("sandbox", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fixtures"),
    )
    op.create_index("ix_fixtures_sandbox_kind", "fixtures", ["sandbox", "kind"])
