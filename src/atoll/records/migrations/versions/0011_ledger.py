"""The ledger: accounts, transfers, holds, budgets and uses, with Testbase's names for them as views."""

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Nothing yet."""
