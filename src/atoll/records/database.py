"""A database that runs transactions: what SQLite and PostgreSQL have in common, retries and deadlines above all.

`sql.py` hands it functions of one Connection; `sqlite.py` and `postgres.py` are the two kinds.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from atoll.domain.errors import AtollError, Unavailable

T = TypeVar("T")
Work = Callable[[Connection], T]

_log = structlog.get_logger()

RETRY_FIRST_S = 0.01
RETRY_LONGEST_S = 0.5


class CommitUnknown(Exception):
    """The connection was lost during COMMIT: nobody can say whether it took place, so it is never tried again."""


class Database(ABC):
    """Runs `work(connection)` in one transaction: committed when it returns, rolled back when it raises.

    `work` may run several times (each time in a fresh transaction) and may run in another thread. Its own errors pass
    through; Unavailable when the database is locked, down or slow for longer than `timeout_s`.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s

    @abstractmethod
    async def start(self) -> None:
        """Migrate the schema and connect."""

    @abstractmethod
    async def close(self) -> None:
        """Let every connection go; a second call does nothing."""

    async def write(self, work: Work[T], *, durable: bool = False) -> T:
        """One read-write transaction. `durable` ones survive a power cut even where others may not."""
        return await self._patiently(lambda: self._write(work, durable))

    async def read(self, work: Work[T], *, timeout_s: float | None = None) -> T:
        """One consistent reading; what `work` writes is an error or lost."""
        return await self._patiently(lambda: self._read(work), timeout_s)

    @abstractmethod
    async def _write(self, work: Work[T], durable: bool) -> T: ...

    @abstractmethod
    async def _read(self, work: Work[T]) -> T: ...

    @abstractmethod
    def _passes(self, error: Exception) -> bool:
        """Whether the same transaction may succeed a moment later."""

    @abstractmethod
    def _reason(self, error: Exception) -> str | None:
        """What is wrong with the database, for the log; None when the error is not the database's but ours."""

    async def _patiently(self, attempt: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        pause_s = RETRY_FIRST_S
        timer = asyncio.timeout(timeout_s or self.timeout_s)
        last: Exception | None = None
        try:
            async with timer:
                while True:
                    try:
                        return await attempt()
                    except AtollError:
                        raise
                    except Exception as error:
                        if not self._passes(error):
                            raise
                        last = error
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                    pause_s = min(2 * pause_s, RETRY_LONGEST_S)
        except TimeoutError:
            if not timer.expired():
                raise
            _log.warning("records.no_answer", reason=None if last is None else self._reason(last))
            raise Unavailable("the database does not answer: try again in a moment") from last
        except CommitUnknown as error:
            raise Unavailable("the database went away during a commit: look before you try again") from error
        except Exception as error:
            if isinstance(error, AtollError) or (reason := self._reason(error)) is None:
                raise
            _log.warning("records.failed", reason=reason)
            raise Unavailable("the database cannot do this now: try again in a moment") from error
