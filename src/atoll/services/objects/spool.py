"""Spool: an upload on its way into a workspace: taken from the client at its own pace, checked, and then given on.

A workspace is locked while it is written, and a client may be slow: so what comes is kept aside first, small things in
memory, the rest in a file without a name, which is gone whatever happens to the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import IO, Self

from atoll.domain.chunk_ids import CHUNK_BYTES
from atoll.domain.tree import chunk_id


class Spool:
    """One upload; `async with` it. `size`, `md5` and `chunks`, the ids of its chunks, are whole once `take` is done."""

    def __init__(self, folder: Path, check_disks: Callable[[], Awaitable[None]]) -> None:
        self._folder = folder
        self._check_disks = check_disks
        self._file: IO[bytes] | None = None
        self._waiting = bytearray()  # of the chunk that is not whole yet
        self._ids: list[bytes] = []
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def chunks(self) -> bytes:
        return b"".join([*self._ids, chunk_id(bytes(self._waiting))] if self._waiting else self._ids)

    async def take(self, pieces: AsyncIterator[bytes]) -> None:
        """All of them. Errors are those of the pieces; StorageFull where the disk becomes so full that nothing new may
        be stored."""
        async for piece in pieces:
            self.size += len(piece)
            self._waiting += piece
            while len(self._waiting) >= CHUNK_BYTES:
                chunk = bytes(self._waiting[:CHUNK_BYTES])
                del self._waiting[:CHUNK_BYTES]
                await self._check_disks()
                await asyncio.to_thread(self._put, chunk)
        self._md5.update(self._waiting)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """What was taken."""
        if self._file is not None:
            await asyncio.to_thread(self._file.seek, 0)
            while data := await asyncio.to_thread(self._file.read, CHUNK_BYTES):
                yield data
        if self._waiting:
            yield bytes(self._waiting)

    def _put(self, chunk: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed at the end of the upload
        self._file.write(chunk)
        self._md5.update(chunk)
        self._ids.append(chunk_id(chunk))
