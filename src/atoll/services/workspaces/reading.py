"""Reading: a working tree as entries, by its keeper; what did not change since the last look is not read again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

from atoll.domain.errors import Internal, TooLarge
from atoll.domain.tree import CHUNK_BYTES, HOLE, Entry, EntryKind, chunk_id
from atoll.services.workspaces.stamps import Known, TreeState, stamped
from atoll.sidekick.keeper_client import KeeperClient, ReadFile, Seen

IN_THREAD_BYTES = 256 * 1024  # hashing less than this costs less than handing it to a thread
APPARENT_BYTES_MAX = 2**42  # of all files: a sparse file costs nothing but the ids of its chunks
LOOKS_MAX = 3  # at a tree from which paths vanish while it is read
_KEPT = frozenset(kind.value for kind in EntryKind)


class ChunkSink(Protocol):
    """Where chunks go."""

    async def add(self, chunk: bytes, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """A tree as it was found: its entries, sorted, and their stamps. `changed` is false when all are as before."""

    entries: list[Entry]
    known: Known
    changed: bool


async def read_tree(keeper: KeeperClient, before: TreeState | None, sink: ChunkSink) -> Reading:
    """Look at every path, read those whose stamps are new, and give their chunks to `sink`.

    Processes may write meanwhile: each file is as it was at some moment of the call. TooLarge for sparse files beyond
    any use.
    """
    known = before.known if before is not None else {}
    looked = await _look(keeper, known, sink)
    for _ in range(LOOKS_MAX - 1):
        if not looked.gone:
            break
        known = looked.known  # what vanished may have moved: look again, what was read is known
        looked = await _look(keeper, known, sink)
    if before is not None and known is before.known and not looked.changed:
        return Reading(looked.entries, known, changed=False)
    return Reading(list(_standing(looked.entries)), looked.known, changed=True)


@dataclass(frozen=True, slots=True)
class _Look:
    entries: list[Entry]
    known: Known
    changed: bool
    gone: bool


async def _look(keeper: KeeperClient, known: Known, sink: ChunkSink) -> _Look:
    moment_ns = time.time_ns()
    found: list[Seen] = []
    async for piece in keeper.scan():
        found += [seen for seen in piece if seen.kind in _KEPT]
    entries, now_known, to_read, changed = await asyncio.to_thread(_compared, found, known, moment_ns)
    gone = False
    if to_read:
        async for file, chunks in _files(keeper, to_read, sink):
            if file.gone or file.seen is None or file.seen.kind not in _KEPT:
                gone = True
                continue
            entry = _entry(file, chunks)
            entries[file.path] = entry
            now_known[file.path] = (stamped(file.seen, moment_ns), entry)
        entries = dict(sorted(entries.items()))
    return _Look(list(entries.values()), now_known, changed, gone)


def _compared(found: list[Seen], known: Known, moment_ns: int) -> tuple[dict[bytes, Entry], Known, list[bytes], bool]:
    """What is known of the paths found: their entries in order, their stamps, what has to be read, whether anything
    is not as before; on a thread, since a tree may have a million paths."""
    found.sort()
    if sum(seen.size for seen in found if seen.kind == "f") > APPARENT_BYTES_MAX:
        raise TooLarge(f"the files of a workspace may have at most {APPARENT_BYTES_MAX} bytes, holes included")
    entries: dict[bytes, Entry] = {}
    now_known: Known = {}
    to_read: list[bytes] = []
    firsts: dict[int, bytes] = {}  # inode -> the first path of a file that has several
    changed = len(found) != len(known)
    for seen in found:
        path = seen.path
        was = known.get(path)
        if seen.links > 1 and seen.kind == "f" and firsts.setdefault(seen.inode, path) != path:
            entry = Entry(path, EntryKind.HARDLINK, 0, 0, target=firsts[seen.inode])
            changed = changed or was is None or was[1] != entry
        elif was is not None and was[0] == seen and was[1].kind is not EntryKind.HARDLINK:
            entry = was[1]
        else:
            to_read.append(path)
            continue
        entries[path] = entry
        now_known[path] = (stamped(seen, moment_ns), entry)
    return entries, now_known, to_read, changed or bool(to_read)


def _entry(file: ReadFile, chunks: bytes) -> Entry:
    seen = file.seen
    assert seen is not None
    kind = EntryKind(seen.kind)
    return Entry(
        file.path,
        kind,
        0 if kind is EntryKind.SYMLINK else seen.mode & 0o7777,
        seen.mtime_ns,
        seen.uid,
        seen.gid,
        file.size if kind is EntryKind.FILE else 0,
        chunks,
        file.target if kind is EntryKind.SYMLINK else b"",
        file.holes if kind is EntryKind.FILE else (),
        tuple(sorted(file.xattrs)),
    )


def _standing(entries: list[Entry]) -> Iterator[Entry]:
    """Those whose parent, and whose first name, is there: paths vanish while a tree is read."""
    kinds: dict[bytes, EntryKind] = {}
    for entry in entries:
        if entry.path and kinds.get(entry.path.rpartition(b"/")[0]) is not EntryKind.DIRECTORY:
            continue
        if entry.kind is EntryKind.HARDLINK and kinds.get(entry.target) is not EntryKind.FILE:
            continue
        kinds[entry.path] = entry.kind
        yield entry


async def _files(keeper: KeeperClient, paths: list[bytes], sink: ChunkSink) -> AsyncIterator[tuple[ReadFile, bytes]]:
    """Each path's head with the ids of its chunks, which are in the sink by then."""
    file: ReadFile | None = None
    cut = _Cut((), 0, sink)
    async for item in keeper.read(paths):
        if isinstance(item, bytes):
            await cut.feed(item)
            continue
        if file is not None:
            yield file, await cut.end()
        file = item
        is_file = file.seen is not None and file.seen.kind == "f" and not file.gone
        cut = _Cut(file.holes, file.size if is_file else 0, sink)
    if file is not None:
        yield file, await cut.end()


class _Cut:
    """The contents of one file on their way into chunks; its holes come as zeros, whole chunks of them as HOLE."""

    def __init__(self, holes: tuple[tuple[int, int], ...], size: int, sink: ChunkSink) -> None:
        self._holes = list(reversed(holes))
        self._size = size
        self._sink = sink
        self._at = 0
        self._chunk = bytearray()
        self._has_data = False
        self._ids = bytearray()

    async def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await self._skip_holes()
            until = self._holes[-1][0] if self._holes else self._size
            take = min(len(view), until - self._at, CHUNK_BYTES - len(self._chunk))
            if take <= 0:
                raise Internal("a keeper sent more of a file than it has")
            self._chunk += view[:take]
            self._has_data = True
            view = view[take:]
            await self._advance(take)

    async def end(self) -> bytes:
        """The ids of all chunks."""
        await self._skip_holes()
        if self._at != self._size:
            raise Internal("a keeper sent less of a file than it has")
        return bytes(self._ids)

    async def _skip_holes(self) -> None:
        while self._holes and self._holes[-1][0] == self._at:
            left = self._holes.pop()[1]
            while left:
                whole = left // CHUNK_BYTES
                if not self._chunk and whole:
                    self._ids += HOLE * whole
                    self._at += whole * CHUNK_BYTES
                    left -= whole * CHUNK_BYTES
                    continue
                length = min(left, CHUNK_BYTES - len(self._chunk))
                self._chunk += bytes(length)
                left -= length
                await self._advance(length)

    async def _advance(self, length: int) -> None:
        self._at += length
        if len(self._chunk) < CHUNK_BYTES and self._at < self._size:
            return
        if self._has_data:
            data = bytes(self._chunk)
            id = chunk_id(data) if len(data) < IN_THREAD_BYTES else await asyncio.to_thread(chunk_id, data)
            self._ids += id
            await self._sink.add(id, data)
        else:
            self._ids += HOLE
        self._chunk.clear()
        self._has_data = False
