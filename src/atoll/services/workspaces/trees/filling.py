"""Filling: entries as the steps that make a working tree equal to them; contents stream from the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol

from atoll.domain.tree import CHUNK_BYTES, HOLE, Entry, EntryKind
from atoll.domain.tree_changes import changes
from atoll.sidekick.keeper_client import Data, Remove, Skip, Step, Write


class ChunkSource(Protocol):
    """Where chunks come from, in the order of their ids."""

    def fetch(self, lineage: str, ids: Iterable[bytes]) -> AsyncGenerator[tuple[bytes, bytes]]: ...


async def steps(
    lineage: str, entries: Sequence[Entry], gone: Iterable[bytes], chunks: ChunkSource
) -> AsyncIterator[Step]:
    """First what goes, then what stands, files with their contents."""
    for path in gone:
        yield Remove(path)
    ids = (id for entry in entries for id in entry.chunk_ids() if id != HOLE)
    async with aclosing(chunks.fetch(lineage, ids)) as contents:
        for entry in entries:
            yield Write(entry)
            hole = 0  # bytes; of a file that is nothing else there are millions of chunks
            for number, id in enumerate(entry.chunk_ids()):
                begin = number * CHUNK_BYTES
                end = min(entry.size, begin + CHUNK_BYTES)
                if id == HOLE:
                    hole += end - begin
                    continue
                if hole:
                    yield Skip(hole)
                    hole = 0
                _, data = await anext(contents)
                for at, length, is_hole in _parts(entry.holes, begin, end):
                    yield Skip(length) if is_hole else Data(data[at - begin : at - begin + length])
            if hole:
                yield Skip(hole)


def _parts(holes: tuple[tuple[int, int], ...], begin: int, end: int) -> Iterator[tuple[int, int, bool]]:
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
