"""Alembic's entry: runs the migrations on the connection, and in the transaction, that `migrate.py` opened."""

from alembic import context

from atoll.domain import crash
from atoll.records.schema import metadata


def _stepped(*_a: object, **_k: object) -> None:
    crash.point("records.migrate.stepped")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    transactional_ddl=False,  # not Alembic's to begin and commit: the caller does
    on_version_apply=_stepped,
)
context.run_migrations()
