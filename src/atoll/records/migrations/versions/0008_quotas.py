"""What has been used, and how much of it one may use."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    pass
