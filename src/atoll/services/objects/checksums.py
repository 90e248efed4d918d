"""Checksums: the MD5 of files, by which clients of object stores tell what changed.

It is remembered by the ids of a file's chunks, which stand for its contents wherever it lies: what an agent wrote is
read once, what came through the door is known already, and what nobody changed costs nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import aclosing

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.tree import Entry
from atoll.services.workspaces.storage.chunks import ChunkStore

KNOWN_MAX = 200_000
AT_ONCE = 2  # lists whose files are read
ZEROS = bytes(CHUNK_BYTES)
IN_LINE_BYTES = 64 * 2**10  # what is hashed on the event loop


class Checksums:
    """Those of files whose chunks are in the store."""

    def __init__(self, chunks: ChunkStore, known_max: int = KNOWN_MAX) -> None:
        self._chunks = chunks
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._known_max = known_max
        self._reading = asyncio.Semaphore(AT_ONCE)
        self.read_bytes = 0  # so far

    async def of(self, lineage: str, entries: Sequence[Entry]) -> list[bytes]:
        """The MD5 of each file, in order. Reads those that are not known. Corrupt."""
        names = [content_name(entry) for entry in entries]
        found = self._recall(names)
        if len(found) < len(set(names)):
            async with self._reading:
                found |= self._recall(names)  # somebody else may have read them meanwhile
                lacking = {name: entry for name, entry in zip(names, entries, strict=True) if name not in found}
                for name, md5 in zip(lacking, await self._read(lineage, list(lacking.values())), strict=True):
                    found[name] = md5
                    self._keep(name, md5)
        return [found[name] for name in names]

    def remember(self, entry: Entry, md5: bytes) -> None:
        """What has the contents of `entry` has that MD5."""
        self._keep(content_name(entry), md5)

    def _recall(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for name in names:
            md5 = self._known.get(name)
            if md5 is not None:
                self._known.move_to_end(name)
                found[name] = md5
        return found

    def _keep(self, name: bytes, md5: bytes) -> None:
        self._known[name] = md5
        while len(self._known) > self._known_max:
            self._known.popitem(last=False)

    async def _read(self, lineage: str, entries: list[Entry]) -> list[bytes]:
        """All their chunks in one go: small files share packs."""
        found: list[bytes] = []
        ids = (id for entry in entries for id in entry.chunk_ids())
        async with aclosing(self._chunks.fetch(lineage, ids)) as chunks:
            for entry in entries:
                md5 = hashlib.md5(usedforsecurity=False)
                for id, _, length in entry.pieces():
                    if id != HOLE:
                        await _feed(md5, (await anext(chunks))[1])
                        continue
                    for at in range(0, length, CHUNK_BYTES):
                        await _feed(md5, ZEROS[: length - at])
                self.read_bytes += entry.size
                found.append(md5.digest())
        return found


def content_name(entry: Entry) -> bytes:
    """What stands for a file's contents, and for nothing else of it."""
    return hashlib.blake2b(b"%d:%b" % (entry.size, entry.chunks), digest_size=16).digest()


async def _feed(md5: hashlib._Hash, data: bytes) -> None:  # pyright: ignore[reportPrivateUsage]
    if len(data) <= IN_LINE_BYTES:
        md5.update(data)
    else:
        await asyncio.to_thread(md5.update, data)
