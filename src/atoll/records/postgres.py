"""PostgreSQL as a Database: a bounded pool of asyncpg connections below SQLAlchemy's async engine.

`sql.py` opens it for postgresql URLs; several servers may share one database.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from atoll.domain.errors import Unavailable, Unsupported
from atoll.records.database import CommitUnknown, Database, Work

T = TypeVar("T")

MIGRATION_S = 600.0
CONNECTION_AGE_S = 1_800
# Serialization failure, deadlock, lock not available; and too many connections, or the server going down, coming up
# or recovering.
PASSING_STATES = frozenset({"40001", "40P01", "55P03", "53300", "57P01", "57P02", "57P03"})
# Data, constraints, transaction state, syntax: what we asked was wrong.
OUR_CLASSES = frozenset({"22", "23", "25", "26", "42"})


class Postgres(Database):
    """READ COMMITTED; every statement has a server-side time limit, so that no lock outlives its caller for long."""

    def __init__(self, url: str, *, connections: int = 8, timeout_s: float = 5.0) -> None:
        super().__init__(timeout_s)
        self._url = url
        self._connections = connections
        self._engine: AsyncEngine | None = None

    async def start(self) -> None:
        # One engine for the migrations, with their longer time limit, and one for all else.
        migrating = engine(self._url, connections=1, statement_s=MIGRATION_S)
        try:
            async with asyncio.timeout(MIGRATION_S):
                await self._patiently(lambda: _migrate(migrating), MIGRATION_S)
        finally:
            await migrating.dispose()
        self._engine = engine(self._url, connections=self._connections, statement_s=self.timeout_s)

    async def close(self) -> None:
        opened, self._engine = self._engine, None
        if opened is not None:
            await opened.dispose()

    async def _write(self, work: Work[T], durable: bool) -> T:
        return await _transaction(self._opened(), work)

    async def _read(self, work: Work[T]) -> T:
        async with self._opened().connect() as connection:
            return await connection.run_sync(work)

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise Unavailable("the database is not open")
        return self._engine

    def _passes(self, error: Exception) -> bool:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OSError | PoolTimeout) or _state(error) in PASSING_STATES

    def _reason(self, error: Exception) -> str | None:
        if isinstance(error, OSError | PoolTimeout):
            return str(error) or type(error).__name__
        state = _state(error)
        if state is None:
            return None if not isinstance(error, DBAPIError) else str(error.orig)
        return None if state[:2] in OUR_CLASSES else f"{state}: {getattr(error, 'orig', error)}"


def _state(error: Exception) -> str | None:
    """The SQLSTATE; asyncpg's own errors, which a refused connection raises, have one as well."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


async def _transaction(opened: AsyncEngine, work: Work[T]) -> T:
    def run(connection: Connection) -> T:
        transaction = connection.begin()
        try:
            result = work(connection)
        except BaseException:
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except (SQLAlchemyError, OSError) as error:
            if isinstance(error, DBAPIError) and not error.connection_invalidated:
                raise
            raise CommitUnknown from error
        return result

    async with opened.connect() as connection:
        return await connection.run_sync(run)


async def _migrate(opened: AsyncEngine) -> None:
    from atoll.records.migrate import upgrade

    await _transaction(opened, upgrade)


def engine(url: str, *, connections: int, statement_s: float) -> AsyncEngine:
    """An async engine whose connections give up on a statement after `statement_s`."""
    try:
        import asyncpg  # noqa: F401  # pyright: ignore
    except ImportError as error:
        raise Unsupported("PostgreSQL needs asyncpg: pip install '.[postgres]' in Atoll's checkout") from error
    limit_ms = str(int(statement_s * 1000))
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=statement_s,
        pool_recycle=CONNECTION_AGE_S,
        hide_parameters=True,  # errors are logged, parameters hold environments
        connect_args={
            "timeout": min(statement_s, 10.0),
            "server_settings": {
                "application_name": "atoll",
                "timezone": "UTC",
                "statement_timeout": limit_ms,
                "idle_in_transaction_session_timeout": limit_ms,
            },
        },
    )
