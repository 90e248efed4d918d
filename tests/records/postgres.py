"""A real PostgreSQL for tests: Debian's binaries, a server of its own on a Unix socket, a fresh database for each test.

`ATOLL_TEST_POSTGRES_URL` names a running server to use instead. Modules that need one import the two fixtures.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

ANSWER_S = 30


class PostgresServer:
    """A cluster in a temporary folder, owned by an ordinary user: PostgreSQL refuses to run as root."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="atoll-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self._folder, account.pw_uid, account.pw_gid)
            self._as_user = ["runuser", "-u", "postgres", "--"]
        self.url = f"postgresql+asyncpg://postgres@/postgres?host={self._folder}"

    def create(self) -> None:
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"
        )
        self.start()

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._ctl("start", "-o", options, "-l", str(self._folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        self._ctl("stop", "-m", mode)

    def remove(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ctl(self, action: str, *arguments: str) -> None:
        self._run("pg_ctl", action, "-w", "-s", "-D", str(self._folder / "data"), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._binaries / program), *arguments]
        # To a file, not a pipe: the server would inherit the pipe and keep it open.
        with open(self._folder / "out", "w+") as out:
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=ANSWER_S)
            if done.returncode:
                out.seek(0)
                raise RuntimeError(f"{program} failed: {out.read()}")


def find_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found and (named := shutil.which("initdb")):
        found = [Path(named)]
    return found[-1].parent if found else None


def server_or_skip() -> PostgresServer:
    """A server nobody else uses, created and running; the caller removes it."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server binaries here (Debian, Ubuntu: apt install postgresql)")
    if os.geteuid() == 0 and (shutil.which("runuser") is None or not _user_exists("postgres")):
        pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` to run it as")
    server = PostgresServer(binaries)
    try:
        server.create()
    except BaseException:
        server.remove()
        raise
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server, one for all tests."""
    if named := os.environ.get("ATOLL_TEST_POSTGRES_URL"):
        yield make_url(named).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        return
    server = server_or_skip()
    try:
        yield server.url
    finally:
        server.remove()


@pytest.fixture
async def postgres_url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of a new, empty database, dropped after the test."""
    async with new_database(postgres_server) as url:
        yield url


@asynccontextmanager
async def new_database(server: str, template: str = "template1") -> AsyncIterator[str]:
    """The URL of a copy of the template, on that server, while the block lasts."""
    name = f"atoll_test_{uuid.uuid4().hex[:12]}"
    await administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield database_of(server, name)
    finally:
        await administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def database_of(server: str, name: str) -> str:
    """The URL of one of its databases."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)


async def administer(url: str, command: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.execute(text(command))
    finally:
        await engine.dispose()


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
