"""Between plan and index: what a commit has to carry, and what to remember when it is done."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping

from atoll.domain.chunk_ids import HOLE, ID_BYTES
from atoll.domain.tree import Entry, EntryKind, check_entries, text
from atoll.domain.tree_changes import Change, with_renames
from atoll.sdk.sync.contents import Stamp, stamp_of
from atoll.sdk.sync.index import Index
from atoll.sdk.sync.plan import ROOT, Plan, Tree
from atoll.sdk.sync.scan import FRESH_NS, Scan
from atoll.sdk.sync.values import SyncedPath
from atoll.sdk.sync.wire import unpack_entries

_COARSE_NS = 1_000  # times that are multiples of it come from a file system that rounds them


def changed_tree(tree: Tree, body: bytes) -> Tree:
    """The workspace's tree after what the server lists; InvalidInput for one that no folder could hold."""
    entries, gone = unpack_entries(body)
    result = dict(tree)
    for path in gone:
        result.pop(path, None)
    for entry in entries:
        result[entry.path] = entry
    result.pop(b"", None)
    result = {path: result[path] for path in sorted(result)}
    for _ in check_entries((ROOT, *result.values())):
        pass
    return result


def commit_of(found: Iterable[Change], wanted: Plan) -> tuple[list[Entry], list[bytes]]:
    """(entries, paths that are gone); folders in which something changes get their times."""
    entries: dict[bytes, Entry] = {}
    gone: list[bytes] = []
    for change in found:
        if change.after is None:
            gone.append(change.path)
        else:
            entries[change.path] = change.after
        parent = change.path.rpartition(b"/")[0]
        there = wanted.workspace_after.get(parent)
        if there is not None and there != wanted.workspace.get(parent):
            entries[parent] = there
    return [entries[path] for path in sorted(entries)], sorted(gone)


def after_commit(tree: Tree, entries: Iterable[Entry], gone: Iterable[bytes]) -> Tree:
    """The whole tree of the workspace then."""
    result = dict(tree)
    for path in gone:
        result.pop(path, None)
    for entry in entries:
        result[entry.path] = entry
    return {path: result[path] for path in sorted(result)}


def remember(
    index: Index,
    wanted: Plan,
    folder: Tree,
    workspace: Tree,
    seen: Scan,
    stamps: Mapping[bytes, Stamp],
    disturbed: frozenset[bytes] = frozenset(),
) -> None:
    """Bring the index up to both sides as they are now. `stamps` are of what was written, `disturbed` was not."""
    base = wanted.agreed(folder, workspace)
    for path in index.base.keys() - wanted.base.keys():  # invisible just now
        base.setdefault(path, index.base[path])
    index.base = base
    for path in disturbed:
        index.base.pop(path, None)
        before = wanted.base.get(path)
        if before is not None:
            if before.kind is EntryKind.HARDLINK:  # what it names may be another file by now
                before = wanted.base[before.target]._replace(path=path)
            index.base[path] = before
    untold = seen.fresh | set(disturbed)
    known = {
        path: one
        for path, one in seen.unchanged.items()
        if folder.get(path) is one[1] and path not in untold and path not in stamps
    }
    for path in folder.keys() - known.keys():
        entry = folder[path]
        stamp = stamps.get(path)
        if stamp is None and seen.entries.get(path) is entry and path not in untold:
            stamp = seen.stamps.get(path)
        if stamp is not None:
            known[path] = stamp, entry
    index.folder = known


def stamps_of_written(folder: str, tree: Tree, found: Iterable[Change]) -> dict[bytes, Stamp]:
    """Stamps of what was just written, taken so late that no later change can hide behind them."""
    root = os.path.join(os.fsencode(folder), b"")
    paths = {path for change in found for path in (change.path, change.path.rpartition(b"/")[0])} & tree.keys()
    if not paths:
        return {}
    first = {path: status for path in paths if (status := _status(root + path, tree[path])) is not None}
    youngest_ns = max((stamp.ctime_ns for stamp in first.values()), default=0)
    time.sleep(max(0, min(FRESH_NS, youngest_ns + FRESH_NS - time.time_ns())) / 1e9)
    return {path: stamp for path, stamp in first.items() if _status(root + path, tree[path]) == stamp}


def _status(path: bytes, entry: Entry) -> Stamp | None:
    """None when it is not what was written."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if entry.kind is EntryKind.FILE:
        times_differ = status.st_mtime_ns != entry.mtime_ns and status.st_mtime_ns % _COARSE_NS != 0
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size or times_differ:
            return None
    return stamp_of(status)


def chunks_in(tree: Tree) -> set[bytes]:
    """The ids of all chunks of a tree."""
    found = {entry.chunks for entry in tree.values() if len(entry.chunks) == ID_BYTES}
    found.update(*(entry.chunk_ids() for entry in tree.values() if len(entry.chunks) > ID_BYTES))
    return found - {HOLE}


def paths_of(found: Iterable[Change]) -> tuple[SyncedPath, ...]:
    """For a report: renamed files as one."""
    return tuple(
        SyncedPath(text(change.path), change.kind.value, text(change.renamed_from) if change.renamed_from else None)
        for change in with_renames(found)
    )
