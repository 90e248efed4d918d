"""Filling: entries as the steps that make a working tree equal to them; contents stream from the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol

from atoll.domain.chunk_ids import HOLE
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_changes import changes
from atoll.sidekick.keeper_client import Data, Remove, Skip, Step, Write


class ChunkSource(Protocol):
    """Where chunks come from, in the order of their ids."""

    def fetch(self, lineage: str, ids: Iterable[bytes]) -> AsyncGenerator[tuple[bytes, bytes]]: ...


async def steps(
    lineage: str, entries: Sequence[Entry], gone: Iterable[bytes], chunks: ChunkSource
) -> AsyncGenerator[Step]:
    """First what goes, then what stands, files with their contents."""
    for path in gone:
        yield Remove(path)
    ids = (id for entry in entries for id in entry.chunk_ids())
    async with aclosing(chunks.fetch(lineage, ids)) as contents:
        for entry in entries:
            yield Write(entry)
            holes = iter(entry.holes)
            waiting = next(holes, None)
            for id, begin, length in entry.pieces():
                if id == HOLE:
                    yield Skip(length)
                    continue
                end = begin + length
                within: list[tuple[int, int]] = []
                while waiting is not None and waiting[0] < end:
                    within.append(waiting)
                    if sum(waiting) > end:
                        break
                    waiting = next(holes, None)
                _, data = await anext(contents)
                for at, stretch, is_hole in _parts(within, begin, end):
                    yield Skip(stretch) if is_hole else Data(data[at - begin : at - begin + stretch])


def _parts(holes: list[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The stretch cut at the borders of holes: (offset, length, whether it is one)."""
    at = begin
    for start, length in holes:
        if start + length <= at:
            continue
        if start >= end:
            break
        if start > at:
            yield at, start - at, False
            at = start
        stop = min(end, start + length)
        yield at, stop - at, True
        at = stop
    if at < end:
        yield at, end - at, False


def difference(before: list[Entry], after: list[Entry]) -> tuple[list[Entry], list[bytes]]:
    """What has to be written, sorted, and which paths have to go so that a tree `before` becomes `after`.

    Written too are the folders of whatever changes, for their times, and every further name of a file that is written.
    """
    written: dict[bytes, Entry] = {}
    gone: list[bytes] = []
    folders = {entry.path: entry for entry in after if entry.kind is EntryKind.DIRECTORY}
    for change in changes(before, after, directory_times=True):
        if change.after is not None:
            written[change.path] = change.after
        elif not (gone and change.path.startswith(gone[-1] + b"/")):
            gone.append(change.path)
        parent = change.path.rpartition(b"/")[0]
        if change.path and parent in folders:
            written[parent] = folders[parent]
    for entry in after:
        if entry.kind is EntryKind.HARDLINK and entry.target in written:
            written[entry.path] = entry
            parent = entry.path.rpartition(b"/")[0]
            written[parent] = folders[parent]
    return [written[path] for path in sorted(written)], gone
