"""Brings a database's schema to this version's head, in one transaction; the databases call it at start.

Both kinds take back DDL when the transaction does not commit, so a migration that is killed leaves the old schema.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from atoll.domain import crash
from atoll.domain.errors import Conflict
from atoll.records.migrations import HEAD

# Any number will do, as long as it stays the same: two servers that start at once must not migrate at once.
ADVISORY_LOCK = 7_235_913_842
VERSION_TABLE = "alembic_version"


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Migrate within the transaction that is open. Conflict when a later version made the database."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
    # Looked at before Alembic is imported, which takes longer than everything else here.
    if revision(connection) == to:
        return
    crash.point("records.migrate.begun")
    _run_alembic(connection, to)
    crash.point("records.migrate.done")


def revision(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _run_alembic(connection: Connection, to: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, to)
    except CommandError as error:
        raise Conflict(
            f"the database has schema {revision(connection)}, which this version of Atoll does not know: "
            "use the version that made it, or a later one"
        ) from error
