"""Tasks, what happened in them, and the threads that they continue."""

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Nothing yet."""
