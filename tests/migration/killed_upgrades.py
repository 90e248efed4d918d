"""Migrates a database again and again, killed with SIGKILL at one of its statements after the other; `test_killed.py`
runs it.

    python killed_upgrades.py URL FIRST STEP

Prints one JSON list: what each run left, {"killed_at", "revision", "tables"}, the last one not killed (null).
Imports happen once; each run is a fork, before which no thread and no event loop exists.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import alembic.command  # noqa: F401  # here, so that no run pays for it
from sqlalchemy import Connection, Engine, event, inspect

from atoll.records.migrate import VERSION_TABLE, revision
from atoll.records.postgres import engine as postgres_engine
from atoll.records.sql import open_records

STATEMENTS_MAX = 200


async def migrate(url: str) -> None:
    records = open_records(url)
    await records.start()
    await records.close()


def killed_at(statement: int, url: str) -> bool:
    """Run a migration that dies at its nth statement; False when it ended before."""
    child = os.fork()
    if child == 0:
        seen = 0

        @event.listens_for(Engine, "before_cursor_execute")
        def count(*_: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            asyncio.run(migrate(url))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return False
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the migration failed by itself"
    return True


async def look(url: str) -> dict[str, Any]:
    def read(connection: Connection) -> dict[str, Any]:
        tables = sorted(set(inspect(connection).get_table_names()) - {VERSION_TABLE})
        return {"revision": revision(connection), "tables": tables}

    if url.startswith("sqlite"):
        from pathlib import Path

        from atoll.records import sqlite

        engine = sqlite.engine(Path(url.removeprefix("sqlite:///")))
        with engine.connect() as connection:
            return read(connection)
    remote = postgres_engine(url, connections=1, statement_s=10)
    try:
        async with remote.connect() as connection:
            return await connection.run_sync(read)
    finally:
        await remote.dispose()


def main(url: str, first: int, step: int) -> None:
    found: list[dict[str, Any]] = []
    for statement in range(first, STATEMENTS_MAX, step):
        killed = killed_at(statement, url)
        found.append({"killed_at": statement if killed else None} | asyncio.run(look(url)))
        if not killed:
            break
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
