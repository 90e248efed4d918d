"""Blobs in a folder of this machine, durable: what `put` returned from is there after a power cut."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

import structlog

from atoll.blobs.base import PIECE_BYTES, Blob, Blobs, check_key, check_prefix
from atoll.blobs.durable_folder import DurableFolder, Irregular, Partial
from atoll.domain.errors import Corrupt, InvalidInput, NotFound, Unavailable

T = TypeVar("T")
_log = structlog.get_logger()

THREADS = 8  # of this store alone, so that a slow disk does not hold up other work
LISTED_AT_ONCE = 1_000


class LocalDisk(Blobs):
    def __init__(self, folder: Path, *, threads: int = THREADS, read_only: bool = False) -> None:
        """`read_only`: nothing is made there, and there must be something."""
        self._folder = DurableFolder(folder)
        self._read_only = read_only
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="blobs")
        try:
            await self._call(self._folder.check if self._read_only else self._folder.prepare)
        except Unavailable as error:
            await self.close()
            if self._read_only:
                raise NotFound(f"there are no blobs in {self._folder.folder}") from error
            raise InvalidInput(
                f"blobs cannot be kept there: {self._folder.folder}: {error}", field="blobs.url"
            ) from error

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)

    async def ping(self) -> None:
        await self._call(self._folder.objects.stat)

    async def put(self, key: str, data: bytes) -> None:
        cancelled = threading.Event()
        await self._call(self._folder.put, check_key(key), data, cancelled.is_set, cancelled=cancelled)

    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> int:
        check_key(key)
        partial = Partial(self._folder.partial)
        cancelled = threading.Event()
        try:
            async for piece in pieces:
                await self._call(partial.write, piece)
            await self._call(self._folder.place, partial, key, cancelled.is_set, cancelled=cancelled)
            return partial.bytes
        finally:
            await self._call(partial.close)

    async def get(self, key: str) -> bytes:
        return await self._find(self._folder.read, check_key(key))

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        return await self._find(self._folder.read_range, check_key(key), offset, length)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        file = await self._find(self._folder.open, check_key(key))
        try:
            while piece := await self._call(file.read, PIECE_BYTES):
                yield piece
        finally:
            file.close()

    async def delete(self, key: str) -> None:
        await self._call(self._folder.delete, check_key(key))

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        found = self._folder.walk(check_prefix(prefix))
        while some := await self._call(lambda: list(islice(found, LISTED_AT_ONCE))):
            for blob in some:
                yield blob

    async def _find(self, function: Callable[..., T], *arguments: object) -> T:
        """As `_call`; what is not there is NotFound, what is no regular file Corrupt."""
        try:
            return await self._call(function, *arguments)
        except Unavailable as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                raise NotFound("no such blob") from None
            if isinstance(error.__cause__, Irregular):
                _log.error("blobs.irregular", folder=str(self._folder.folder), error=str(error.__cause__))
                raise Corrupt("what is there is no blob but a link, a folder or a device") from None
            raise

    async def _call(
        self, function: Callable[..., T], *arguments: object, cancelled: threading.Event | None = None
    ) -> T:
        """The function's result, from a thread. A cancellation gets through when the thread has ended, not before."""
        if self._pool is None:
            raise Unavailable("the blobs are not started")
        running = asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if cancelled is not None:
                cancelled.set()
            with suppress(Exception):
                await running
            raise
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                _log.warning("blobs.failed", folder=str(self._folder.folder), error=str(error))
            raise Unavailable(f"the folder of blobs: {error.strerror}") from error
