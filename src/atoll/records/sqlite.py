"""SQLite as a Database: one writer connection in a thread of its own, a few readers beside it.

`sql.py` opens it for sqlite URLs. Whole transactions run in the thread, so that each costs one hop from the event loop
and back instead of one for each statement; that is why the driver is the standard library's and not an async one.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from atoll.domain.errors import Unavailable
from atoll.records.append_only import ROWS_STAY
from atoll.records.database import Database, Work
from atoll.records.group_commit import Waiting, execute, run_group, transaction

T = TypeVar("T")
_log = structlog.get_logger()

__all__ = ["Sqlite", "engine", "execute", "transaction"]

READERS_MAX = 4
WAITING_MAX = 10_000  # transactions in line for the writer, and for the readers
MIGRATION_S = 60.0  # longest wait for another process's migration
OPEN_AGAIN_S = 0.05
BUSY_S = 1.0  # one wait for another process's lock; `timeout_s` bounds them all
CHECKPOINT_EVERY_COMMITS = 256
# Should the background checkpoints not keep up, the writer makes them itself from this size on.
WAL_PAGES_MAX = 16_384
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "foreign_keys=ON",
    f"wal_autocheckpoint={WAL_PAGES_MAX}",
    f"journal_size_limit={64 * 2**20}",
    "temp_store=MEMORY",
)


class Sqlite(Database):
    """WAL with synchronous=NORMAL: a commit survives the death of the process, kill -9 included, and costs no fsync.

    A power cut may take the last moments with it, consistently, and takes every sandbox anyway. What must outlive
    it (keys: a revoked one may not come back; money) is written with `durable`, which syncs: those that wait at the
    same moment together.
    """

    def __init__(self, path: Path, *, readers: int = READERS_MAX, timeout_s: float = 5.0) -> None:
        super().__init__(timeout_s)
        self.path = path
        self._engine = engine(path)
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._read_threads = ThreadPoolExecutor(min(readers, READERS_MAX), thread_name_prefix="sqlite-reader")
        self._waiting = {self._write_thread: 0, self._read_threads: 0}
        self._writer: Connection | None = None
        self._durable: deque[Waiting[Any]] = deque()
        self._reader = threading.local()
        self._readers: list[Connection] = []
        self._commits = 0
        self._checkpoint: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._write_thread, self._open)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._checkpoint is not None:
            self._checkpoint.cancel()
        await asyncio.to_thread(self._release)

    def _open(self) -> None:
        from atoll.records.migrate import upgrade

        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Before SQLite makes it: keys' hashes and environments are nobody else's. -wal and -shm copy the mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._writer = self._first_connection()
            # Another server's migration may be under way: it takes longer than any other transaction.
            execute(self._writer, f"PRAGMA busy_timeout={int(MIGRATION_S * 1000)}")
            transaction(self._writer, upgrade)
            execute(self._writer, f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")
            for statement in ROWS_STAY:
                execute(self._writer, statement)
        except OSError as error:
            raise Unavailable(f"{self.path}: {error.strerror}") from error
        except DBAPIError as error:
            raise Unavailable(f"{self.path}: {error.orig}") from error

    def _first_connection(self) -> Connection:
        """Tried again while another server opens the same new database: switching it to WAL waits for nobody."""
        until = time.monotonic() + MIGRATION_S
        while True:
            try:
                return self._engine.connect()
            except OperationalError as error:
                busy = (
                    isinstance(error.orig, sqlite3.Error) and error.orig.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                )
                if not busy or time.monotonic() > until:
                    raise
            time.sleep(OPEN_AGAIN_S)

    def _connected(self) -> Connection:
        """This reader thread's connection; one that cannot be opened now is tried again with the next question."""
        found: Connection | None = getattr(self._reader, "connection", None)
        if found is None:
            found = self._reader.connection = self._engine.connect()
            self._readers.append(found)
        return found

    def _release(self) -> None:
        for threads in (self._write_thread, self._read_threads):
            threads.shutdown(cancel_futures=True)
        for connection in (self._writer, *self._readers):
            if connection is not None:
                connection.close()
        self._engine.dispose()

    async def _write(self, work: Work[T], durable: bool) -> T:
        one = Waiting(work)
        try:
            if durable:
                self._durable.append(one)  # before it is in the thread's line: there they have the same order
                await self._in(self._write_thread, partial(self._run_group, one))
                result = one.result()
            else:
                result = await self._in(self._write_thread, partial(self._run_alone, one))
        except BaseException:
            one.abandoned.set()
            raise
        self._commits += 1
        idle = self._checkpoint is None or self._checkpoint.done()
        if self._commits % CHECKPOINT_EVERY_COMMITS == 0 and idle:
            self._checkpoint = asyncio.create_task(self._move_wal())
        return result

    def _run_alone(self, one: Waiting[T]) -> T:
        return transaction(self._opened(), one.work, one.abandoned)

    def _run_group(self, one: Waiting[Any]) -> None:
        """Run all that wait, so that they share one sync; then each finds that it is done already."""
        while not one.done:
            writer = self._opened()
            execute(writer, "PRAGMA synchronous=FULL")
            try:
                run_group(writer, self._durable)
            finally:
                execute(writer, "PRAGMA synchronous=NORMAL")

    def _opened(self) -> Connection:
        if self._writer is None:
            raise Unavailable("the database is not open")
        return self._writer

    async def _read(self, work: Work[T]) -> T:
        def run() -> T:
            connection = self._connected()
            try:
                return work(connection)
            finally:
                connection.rollback()  # for SQLAlchemy's books: the driver has no transaction open

        return await self._in(self._read_threads, run)

    async def _in(self, threads: ThreadPoolExecutor, run: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the database is closed")
        if self._waiting[threads] >= WAITING_MAX:
            raise Unavailable("too many requests wait for the database: try again in a moment")
        self._waiting[threads] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, run)
        finally:
            self._waiting[threads] -= 1

    async def _move_wal(self) -> None:
        # Most of it in a reader's thread: its fsync would otherwise hold up whoever made the unlucky commit. Then what
        # came meanwhile in the writer's, where nothing can come meanwhile, so that the log begins again at its start.
        def move(connection: Connection) -> None:
            execute(connection, "PRAGMA wal_checkpoint(PASSIVE)")

        try:
            await self._read(move)
            if self._writer is not None:
                await self._in(self._write_thread, partial(move, self._writer))
        except Exception:
            _log.warning("records.checkpoint_failed", exc_info=True)

    def _passes(self, error: Exception) -> bool:
        code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) or 0
        return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def _reason(self, error: Exception) -> str | None:
        # OperationalError: full, read-only, gone or broken below; plain DatabaseError: damaged.
        mine = isinstance(error, OperationalError) or type(error) is DBAPIError
        return str(cast(DBAPIError, error).orig) if mine else None


def engine(path: Path) -> Engine:
    """A synchronous engine whose connections leave transactions to their callers; any thread may use them."""
    made = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        hide_parameters=True,  # errors are logged, parameters hold environments
        # The driver's own idea of transactions leaves DDL outside of them: it gets out of the way.
        connect_args={"timeout": BUSY_S, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(made, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    return made
