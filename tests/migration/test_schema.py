"""The schema: what the migrations make is what the program believes, on both databases; later schemas are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from atoll.domain.errors import Conflict
from atoll.records import migrations
from atoll.records.database import Database
from atoll.records.migrate import VERSION_TABLE
from atoll.records.migrations import HEAD
from atoll.records.postgres import Postgres
from atoll.records.schema import TABLES, metadata
from atoll.records.schema.ledger import VIEWS
from atoll.records.sqlite import Sqlite
from atoll.testing.records_conformance import together


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/atoll.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def databases(url: str) -> AsyncIterator[tuple[Database, Database]]:
    """The same database twice, not started."""

    def made() -> Database:
        return (
            Sqlite(Path(url.removeprefix("sqlite:///"))) if url.startswith("sqlite") else Postgres(url, connections=2)
        )

    pair = made(), made()
    yield pair
    for database in pair:
        await database.close()


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return ScriptDirectory.from_config(config)


def test_the_history_is_one_line_and_its_end_is_the_head_that_the_program_knows() -> None:
    assert scripts().get_heads() == [HEAD]
    assert len(scripts().get_bases()) == 1
    files = {path.name[:4] for path in (Path(migrations.__file__).parent / "versions").glob("0*.py")}
    assert files == {script.revision for script in scripts().walk_revisions()}


def test_no_migration_reads_the_current_schema() -> None:
    for path in (Path(migrations.__file__).parent / "versions").glob("0*.py"):
        assert "atoll" not in path.read_text(), f"{path.name} would change when the program does"


async def test_the_sum_of_the_migrations_is_the_schema(databases: tuple[Database, Database]) -> None:
    database = databases[0]
    await database.start()
    by_migrations = await database.write(described)

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, metadata)

    assert await database.write(differences) == []

    def make_anew(connection: Connection) -> None:
        metadata.drop_all(connection)
        metadata.create_all(connection)

    await database.write(make_anew)
    assert by_migrations == await database.write(described)
    assert set(by_migrations) == {table.name for table in TABLES} | {"views"}
    assert set(by_migrations["views"]) == set(VIEWS)


def described(connection: Connection) -> dict[str, Any]:
    """Everything that the database says about its tables."""
    look = inspect(connection)
    found: dict[str, Any] = {}
    for name in set(look.get_table_names()) - {VERSION_TABLE}:
        found[name] = {
            "columns": [{**column, "type": str(column["type"])} for column in look.get_columns(name)],
            "key": look.get_pk_constraint(name),
            "unique": sorted(look.get_unique_constraints(name), key=str),
            "indexes": sorted(map(_comparable, look.get_indexes(name)), key=str),
            "foreign": look.get_foreign_keys(name),
        }
        if connection.dialect.name == "sqlite":
            query = text("SELECT sql FROM sqlite_master WHERE name = :name")
            made = connection.execute(query, {"name": name}).scalar_one()
            found[name]["autoincrement"] = "AUTOINCREMENT" in made
    found["views"] = {name: look.get_view_definition(name) for name in look.get_view_names()}
    return found


def _comparable(index: Any) -> dict[str, Any]:
    """With the condition of a partial index as text: its objects are equal to nothing."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return {**index, "dialect_options": options}


async def test_a_second_start_changes_nothing(databases: tuple[Database, Database]) -> None:
    await databases[0].start()
    before = await databases[0].write(described)
    await databases[1].start()
    assert await databases[1].write(described) == before


async def test_two_servers_that_start_at_once_migrate_once(databases: tuple[Database, Database]) -> None:
    assert await together(databases[0].start(), databases[1].start()) == [None, None]
    assert set(await databases[0].write(described)) == {table.name for table in TABLES} | {"views"}


async def test_a_schema_of_a_later_version_is_refused_and_left_alone(databases: tuple[Database, Database]) -> None:
    await databases[0].start()

    def set_revision(connection: Connection) -> None:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    await databases[0].write(set_revision)
    before = await databases[0].write(described)
    with pytest.raises(Conflict, match="schema 9999, which this version of Atoll does not know"):
        await databases[1].start()
    assert await databases[0].write(described) == before
