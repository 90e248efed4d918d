"""Databases whose schema stands already: migrated once in each process and copied, for tests of something else."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.records.sql import open_records
from tests.records.postgres import administer, database_of, new_database

_made: dict[str, bytes] = {}


async def migrated_sqlite(path: Path) -> str:
    """The URL of a new database there."""
    if not _made:
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder) / "atoll.db"
            await _migrate(f"sqlite:///{first}")
            _made["sqlite"] = first.read_bytes()
    await asyncio.to_thread(path.write_bytes, _made["sqlite"])
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    name = f"atoll_template_{os.getpid()}"
    asyncio.run(administer(postgres_server, f"CREATE DATABASE {name}"))
    try:
        asyncio.run(_migrate(database_of(postgres_server, name)))
        yield name
    finally:
        asyncio.run(administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def migrated_postgres_url(postgres_server: str, postgres_template: str) -> AsyncIterator[str]:
    """The URL of a new database, dropped after the test."""
    async with new_database(postgres_server, postgres_template) as url:
        yield url


async def _migrate(url: str) -> None:
    records = open_records(url)
    try:
        await records.start()
    finally:
        await records.close()
