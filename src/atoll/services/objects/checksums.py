"""Checksums: the MD5 of files, by which clients of object stores tell what changed.

It is remembered by the ids of a file's chunks, which stand for its contents wherever it lies: what an agent wrote is
read once, what came through the door is known already, and what nobody changed costs nothing. Reading takes turns: who
asks for much waits for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.tree import Entry
from atoll.services.deadline import deadline
from atoll.services.locks import Locks
from atoll.services.workspaces.storage.chunks import ChunkStore

KNOWN_MAX = 200_000
AT_ONCE = 2  # lists whose files are read, each of another who asks
READ_S = 60.0  # waiting for a turn, and reading
SLOW_BYTES_S = 100 * 2**20  # one large file may take longer: else it would never get done
ZEROS = bytes(CHUNK_BYTES)
IN_LINE_BYTES = 64 * 2**10  # what is hashed on the event loop


class Checksums:
    """Those of files whose chunks are in the store."""

    def __init__(self, chunks: ChunkStore, known_max: int = KNOWN_MAX, read_s: float = READ_S) -> None:
        self._chunks = chunks
        self._read_s = read_s
        self._turns = Locks()
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._known_max = known_max
        self._reading = asyncio.Semaphore(AT_ONCE)
        self.read_bytes = 0  # so far

    async def of(self, who: str, lineage: str, entries: Sequence[Entry]) -> list[bytes]:
        """The MD5 of each file, in order. Reads those that are not known. Corrupt; DeadlineExceeded: what was read by
        then is known when `who` asks again."""
        names = [content_name(entry) for entry in entries]
        found = self._recall(names)
        lacking = {name: entry for name, entry in zip(names, entries, strict=True) if name not in found}
        if lacking:
            seconds = self._read_s + max(entry.size for entry in lacking.values()) / SLOW_BYTES_S
            async with deadline(seconds, "reading checksums"), self._turns.hold(who), self._reading:
                known = self._recall(lacking)  # somebody else may have read them meanwhile
                found |= known
                found |= await self._read(lineage, {name: lacking[name] for name in lacking if name not in known})
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

    async def _read(self, lineage: str, entries: Mapping[bytes, Entry]) -> dict[bytes, bytes]:
        """All their chunks in one go: small files share packs. Each is kept as soon as it is known."""
        found: dict[bytes, bytes] = {}
        ids = (id for entry in entries.values() for id in entry.chunk_ids())
        async with aclosing(self._chunks.fetch(lineage, ids)) as chunks:
            for name, entry in entries.items():
                md5 = hashlib.md5(usedforsecurity=False)
                for id, _, length in entry.pieces():
                    if id != HOLE:
                        await _feed(md5, (await anext(chunks))[1])
                        continue
                    for at in range(0, length, CHUNK_BYTES):
                        await _feed(md5, ZEROS[: length - at])
                self.read_bytes += entry.size
                found[name] = md5.digest()
                self._keep(name, found[name])
        return found


def content_name(entry: Entry) -> bytes:
    """What stands for a file's contents, and for nothing else of it."""
    return hashlib.blake2b(b"%d:%b" % (entry.size, entry.chunks), digest_size=16).digest()


async def _feed(md5: hashlib._Hash, data: bytes) -> None:  # pyright: ignore[reportPrivateUsage]
    if len(data) <= IN_LINE_BYTES:
        md5.update(data)
    else:
        await asyncio.to_thread(md5.update, data)
