"""Whose a lineage is, and how many bytes each owner has stored."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# A lineage is that of its workspaces, or of one snapshot with a key of its own; of neither: left over, and nobody's.
_OWNER = (
    "UPDATE lineages SET owner = coalesce("
    "(SELECT min(workspaces.owner) FROM workspaces WHERE workspaces.lineage = lineages.id), "
    "(SELECT min(snapshots.owner) FROM snapshots WHERE snapshots.lineage = lineages.id), '')"
)
_SUM = (
    "INSERT INTO owners (id, stored_bytes) SELECT lineages.owner, sum(packs.bytes) FROM packs "
    "JOIN lineages ON lineages.id = packs.lineage GROUP BY lineages.owner"
)


def upgrade() -> None:
    op.add_column("lineages", sa.Column("owner", sa.String, server_default=sa.text("''"), nullable=False))
    op.execute(_OWNER)
    op.create_table(
        "owners",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_owners"),
    )
    op.execute(_SUM)
