"""Blobs in memory, for tests: as the contract says, and broken on demand.

blobs = MemoryBlobs()
blobs.fail_next(2)                       # the next two calls raise Unavailable
blobs.fail_next(1, after=3)              # ... the fourth does
blobs.hang = True                        # calls wait until it is False again
blobs.flip("lineages/a/packs/b", 17)     # one bit of that byte
blobs.objects.pop("lineages/a/packs/b")  # lost
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from atoll.blobs.base import PIECE_BYTES, Blob, Blobs, check_key, check_prefix
from atoll.domain.errors import AtollError, NotFound, Unavailable


class MemoryBlobs(Blobs):
    """A store that dies with the process. `calls` counts them by name; `modified_at` may be set back by tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified_at: dict[str, datetime] = {}
        self.calls: Counter[str] = Counter()
        self.answers = asyncio.Event()
        self.answers.set()
        self._started = False
        self._failures: list[AtollError | None] = []

    def fail_next(self, times: int, error: AtollError | None = None, *, after: int = 0) -> None:
        """After so many more calls, let so many raise."""
        self._failures = [None] * after + [error or Unavailable("the store answered 503")] * times

    def flip(self, key: str, at: int = 0) -> None:
        """Change one bit of the object."""
        data = bytearray(self.objects[key])
        data[at] ^= 1
        self.objects[key] = bytes(data)

    async def start(self) -> None:
        self._started = True

    async def close(self) -> None:
        self._started = False

    async def ping(self) -> None:
        await self._called("ping")

    async def put(self, key: str, data: bytes) -> None:
        check_key(key)
        await self._called("put")
        self._place(key, bytes(data))

    async def write(self, key: str, pieces: AsyncIterator[bytes]) -> int:
        check_key(key)
        await self._called("write")
        data = b"".join([bytes(piece) async for piece in pieces])
        self._place(key, data)
        return len(data)

    async def get(self, key: str) -> bytes:
        check_key(key)
        await self._called("get")
        return self._find(key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        check_key(key)
        await self._called("get_range")
        data = self._find(key)
        if offset + length > len(data):
            raise NotFound("no such blob")
        return data[offset : offset + length]

    async def read(self, key: str) -> AsyncIterator[bytes]:
        check_key(key)
        await self._called("read")
        data = self._find(key)
        for at in range(0, len(data), PIECE_BYTES):
            yield data[at : at + PIECE_BYTES]

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._called("delete")
        self.objects.pop(key, None)
        self.modified_at.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[Blob]:
        check_prefix(prefix)
        await self._called("list")
        for key, data in list(self.objects.items()):
            if key.startswith(prefix):
                yield Blob(key, len(data), self.modified_at.get(key) or datetime.now(UTC))

    async def _called(self, name: str) -> None:
        if not self._started:
            raise Unavailable("the blobs are not started")
        self.calls[name] += 1
        await asyncio.sleep(0)
        await self.answers.wait()
        if self._failures and (failure := self._failures.pop(0)):
            raise failure

    def _place(self, key: str, data: bytes) -> None:
        self.objects[key] = data
        self.modified_at[key] = datetime.now(UTC)

    def _find(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFound("no such blob")
        return self.objects[key]
