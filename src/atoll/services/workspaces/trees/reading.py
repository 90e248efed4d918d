"""Reading: a working tree as entries, by its keeper; what did not change since the last look is not read again."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

from atoll.domain.chunk_ids import ID_BYTES
from atoll.domain.errors import TooLarge
from atoll.domain.tree import Entry, EntryKind, text
from atoll.services.workspaces.trees.cutting import ChunkSink, Cut, Cutting
from atoll.services.workspaces.trees.looking import KEPT, SHOWN_BYTES, Looked, check_file, compare, in_order
from atoll.services.workspaces.trees.stamps import Known, Scanned, TreeState, stamped
from atoll.sidekick.keeper_client import KeeperClient, ReadFile

TREE_SLOTS_MAX = 2**22  # of chunk ids and holes of all files: 128 MiB of memory
LOOKS_MAX = 3  # at a tree from which paths vanish while it is read


@dataclass(frozen=True, slots=True)
class Reading:
    """A tree as it was found: its entries and their stamps, sorted. `changed` is false when all are as before."""

    known: Known
    scanned: Scanned
    changed: bool

    @property
    def entries(self) -> list[Entry]:
        """Sorted; a new list."""
        return [entry for _, entry in self.known.values()]


async def read_tree(keeper: KeeperClient, before: TreeState | None, sink: ChunkSink) -> Reading:
    """Look at every path, read those whose stamps are new, and give their chunks to `sink`.

    Processes may write meanwhile: each file is as it was at some moment of the call. TooLarge for sparse files beyond
    any use.
    """
    known, scanned = (before.known, before.scanned) if before is not None else (Known(), Scanned())
    changed = before is None
    for _ in range(LOOKS_MAX):
        looked, gone = await _look(keeper, known, scanned, sink)
        known, scanned, changed = looked.known, looked.scanned, changed or looked.changed
        if not gone:
            break  # what vanished may have moved: look again, what was read is known
    if changed:
        await asyncio.to_thread(_check_slots, known)
        standing = await asyncio.to_thread(_standing, known)
        if len(standing) != len(known):
            known, scanned = standing, Scanned()
    return Reading(known, scanned, changed)


async def _look(keeper: KeeperClient, before: Known, scanned: Scanned, sink: ChunkSink) -> tuple[Looked, bool]:
    """What is known now, and whether paths vanished while they were read."""
    moment_ns = time.time_ns()
    pieces: dict[bytes, list[bytes]] = {}
    async for folder, packed in keeper.scan_packed():
        pieces.setdefault(folder, []).append(packed)
    folders = {folder: b"".join(packed) for folder, packed in pieces.items()}
    looked = await asyncio.to_thread(compare, folders, before, scanned, moment_ns)
    if not looked.to_read:
        return looked, False
    known, trusted, gone = dict(looked.known), dict(looked.scanned.folders), False
    async for file, chunks in _files(keeper, looked.to_read, sink):
        if file.seen != looked.to_read[file.path]:
            trusted.pop(file.path.rpartition(b"/")[0], None)
        if file.gone or file.seen is None or file.seen.kind not in KEPT:
            gone = True
            continue
        known[file.path] = (stamped(file.seen, moment_ns), _entry(file, chunks))
    known = in_order(known, before)
    return Looked(known, {}, True, Scanned(trusted, looked.scanned.linked & trusted.keys())), gone


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


def _check_slots(known: Known) -> None:
    """TooLarge for files that are scattered so far that what tells of them is too much for memory."""
    if sum(len(entry.chunks) for _, entry in known.values()) <= TREE_SLOTS_MAX * ID_BYTES:
        return
    worst = max((entry for _, entry in known.values()), key=lambda entry: len(entry.chunks))
    raise TooLarge(
        f"path {text(worst.path[:SHOWN_BYTES])!r} and others: the files of a workspace have at most {TREE_SLOTS_MAX} "
        "chunks and holes together; no revision can be taken while they have more"
    )


def _standing(known: Known) -> Known:
    """Those whose parent, and whose first name, is there: paths vanish while a tree is read."""
    kinds: dict[bytes, EntryKind] = {}
    standing: Known = {}
    for path, one in known.items():
        entry = one[1]
        if path and kinds.get(path.rpartition(b"/")[0]) is not EntryKind.DIRECTORY:
            continue
        if entry.kind is EntryKind.HARDLINK and kinds.get(entry.target) is not EntryKind.FILE:
            continue
        kinds[path] = entry.kind
        standing[path] = one
    return standing


async def _files(
    keeper: KeeperClient, paths: Iterable[bytes], sink: ChunkSink
) -> AsyncGenerator[tuple[ReadFile, bytes]]:
    """Each path's head with the ids of its chunks, which are in the sink by then."""
    files: deque[tuple[ReadFile, Cut]] = deque()
    async with Cutting(sink) as cutting:
        async for item in keeper.read(list(paths)):
            if isinstance(item, bytes):
                file, cut = files[-1]
                cut.feed(item)
                check_file(file.path, file.size, len(cut.runs))
                await cutting.give()
                continue
            if files:
                files[-1][1].end()
            is_file = item.seen is not None and item.seen.kind == "f" and not item.gone
            files.append((item, cutting.begin(item.holes, item.size if is_file else 0)))
            while (ids := files[0][1].ids) is not None:
                yield files.popleft()[0], ids
        if files:
            files[-1][1].end()
    for file, cut in files:
        assert cut.ids is not None
        yield file, cut.ids
