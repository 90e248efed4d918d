"""Tree size: what a tree takes of a workspace's quota, as the file systems of working trees count it.

Blocks of 4096 bytes for contents (holes take none), for folders, for long links and attributes, and for the map of a
file that lies in many places; an inode for each file and folder, the workspace's own included, whatever names it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from atoll.domain.chunk_ids import has_holes
from atoll.domain.tree import Entry, EntryKind

BLOCK_BYTES = 4096
_EXTENT_BLOCKS = 2**15  # the most that one place in a file's map tells of
_EXTENTS_IN_INODE = 4
_EXTENTS_IN_BLOCK = 340
_TARGET_IN_INODE = 59  # bytes
_XATTRS_IN_INODE = 92
_NAMES_IN_BLOCK = 4048  # bytes, in a folder of one block
_NAMES_IN_FULL_BLOCK = 2600  # in one of many: they split in halves as they fill
_PER_ENTRY_MAX = 3 * BLOCK_BYTES  # that an entry takes besides the bytes of its contents, holes counted as such


class TreeSize(NamedTuple):
    """What a tree takes."""

    bytes: int
    inodes: int


def size_of(entries: Iterable[Entry]) -> TreeSize:
    """Of a whole tree, its root included (whose first block counts for nothing)."""
    blocks = inodes = 0
    names: dict[bytes, int] = {}  # folder -> bytes of what is in it
    for entry in entries:
        path, kind = entry.path, entry.kind
        folder, _, name = path.rpartition(b"/")
        names[folder] = names.get(folder, 0) + (8 + len(name) + 3 & ~3)
        if kind is EntryKind.HARDLINK:
            continue
        inodes += 1
        if kind is EntryKind.FILE:
            blocks += _file_blocks(entry)
        elif kind is EntryKind.DIRECTORY:
            blocks += bool(path)
        elif len(entry.target) > _TARGET_IN_INODE:
            blocks += 1
        if entry.xattrs and _xattr_bytes(entry) > _XATTRS_IN_INODE:
            blocks += 1
    for held in names.values():
        if held > _NAMES_IN_BLOCK:
            blocks += max(2, held // _NAMES_IN_FULL_BLOCK)
    return TreeSize(blocks * BLOCK_BYTES, inodes)


def size_at_most(entries: int, size: int) -> TreeSize:
    """More than a tree of so many entries and bytes of contents (holes included) takes: known without a look at it."""
    return TreeSize(size + entries * _PER_ENTRY_MAX, entries)


def with_slack(size: TreeSize) -> TreeSize:
    """What surely holds a tree of that size: folders fill their blocks, and files lie, as it happens."""
    return TreeSize(size.bytes + size.bytes // 64 + 8 * BLOCK_BYTES, size.inodes)


def _file_blocks(entry: Entry) -> int:
    whole = -(-entry.size // BLOCK_BYTES)
    if not entry.holes and not has_holes(entry.chunks):
        extents = -(-whole // _EXTENT_BLOCKS)
        return whole if extents <= _EXTENTS_IN_INODE else whole - (-extents // _EXTENTS_IN_BLOCK)
    blocks = extents = at = 0
    for begin, length in [*entry.all_holes(), (entry.size, 0)]:
        first, end = -(-begin // BLOCK_BYTES), begin + length
        if first > at:
            blocks += first - at
            extents += -(-(first - at) // _EXTENT_BLOCKS)
        at = max(at, end // BLOCK_BYTES if end < entry.size else whole)
    return blocks if extents <= _EXTENTS_IN_INODE else blocks - (-extents // _EXTENTS_IN_BLOCK)


def _xattr_bytes(entry: Entry) -> int:
    return sum(16 + (len(name) + 3 & ~3) + (len(value) + 3 & ~3) for name, value in entry.xattrs)
