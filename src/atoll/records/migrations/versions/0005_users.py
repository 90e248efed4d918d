"""Users, and the tokens that they refresh."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    pass
