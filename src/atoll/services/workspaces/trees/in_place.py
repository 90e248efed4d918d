"""In place: whether a working tree has the room to become another one where it is, path by path.

A file that replaces one is written beside it first; so a full tree may have no room for a smaller file.
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.domain.tree import Entry
from atoll.domain.tree_size import TreeSize, size_of


def has_room(free: TreeSize, before: Iterable[Entry], after: Iterable[Entry]) -> bool:
    """Whether so much that is free is enough on the way from `before` to `after`, both sorted."""
    old = {entry.path: entry for entry in before}
    grown = largest = inodes = 0
    for entry in after:
        was = old.pop(entry.path, None)
        if was == entry:
            continue
        now, then = size_of([entry]), size_of([was] if was is not None else [])
        inodes += now.inodes - then.inodes
        grown += max(0, now.bytes - then.bytes)
        largest = max(largest, min(now.bytes, then.bytes))
    gone = size_of(old.values())  # goes first
    return grown + largest - gone.bytes <= free.bytes and inodes + 1 - gone.inodes <= free.inodes
