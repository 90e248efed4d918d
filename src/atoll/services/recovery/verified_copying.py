"""Verified copying: objects from one store of blobs to another, a few at a time, with length and hash of each.

Backup and restore call it, and the job that keeps the second store.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from atoll.blobs.base import Blobs
from atoll.domain.errors import Corrupt, NotFound

T = TypeVar("T")

AT_ONCE = 8  # objects


@dataclass(frozen=True, slots=True)
class Contents:
    """What an object holds: its length, and the sha256 of its bytes in hex."""

    bytes: int
    sha256: str


async def contents(blobs: Blobs, key: str) -> Contents:
    """Read all of it. NotFound, Unavailable."""
    digest = _Digest()
    async for _ in digest.of(blobs.read(key)):
        pass
    return digest.contents


async def copy(
    source: Blobs, target: Blobs, key: str, expected: Contents | None = None, *, length: int | None = None
) -> Contents:
    """Copy an object under the same key; what it holds. Corrupt when that is not what is expected, or not so long: then
    nothing of it is in the target. NotFound, Unavailable."""
    digest = _Digest()
    await target.write(key, digest.of(source.read(key), expected, length))
    return digest.contents


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """Do the work for every item, so many at a time. The first that fails ends the others."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def differs(found: Contents | None, expected: Contents) -> str | None:
    """What is wrong with an object of which that was found; None when nothing is."""
    if found is None:
        return "is missing"
    if found.bytes != expected.bytes:
        return f"has {found.bytes} bytes instead of {expected.bytes}"
    return None if found == expected else "is not what was stored"


async def found_at(blobs: Blobs, key: str) -> Contents | None:
    """As `contents`; None when there is no such object."""
    try:
        return await contents(blobs, key)
    except NotFound:
        return None


class _Digest:
    """Counts and hashes what passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0

    @property
    def contents(self) -> Contents:
        return Contents(self._bytes, self._hash.hexdigest())

    async def of(
        self, pieces: AsyncIterator[bytes], expected: Contents | None = None, length: int | None = None
    ) -> AsyncGenerator[bytes]:
        async for piece in pieces:
            await asyncio.to_thread(self._hash.update, piece)
            self._bytes += len(piece)
            yield piece
        if expected is not None and (wrong := differs(self.contents, expected)) is not None:
            raise Corrupt(wrong)
        if length is not None and self._bytes != length:
            raise Corrupt(f"has {self._bytes} bytes instead of {length}")
