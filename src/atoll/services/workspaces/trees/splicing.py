"""Splicing: one path of another tree in place of what stands there in this one; hardlinks on both sides stay whole."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.domain.tree import Entry, EntryKind

_Group = tuple[bool, bytes]  # (of the other tree, the first name of the file)


def splice(now: Iterable[Entry], then: Iterable[Entry], path: bytes) -> list[Entry]:
    """The entries `now`, sorted, with all at and below `path` replaced by what `then` has there.

    Folders above it that are gone come back too, in place of whatever stands in their way.
    """
    ours, theirs = _files(now, False), _files(then, True)
    below = path + b"/"
    placed = {at: one for at, one in ours.items() if at != path and not at.startswith(below)}
    for above in _parents(path):
        there = placed.get(above)
        if there is None or there[0].kind is not EntryKind.DIRECTORY:
            placed[above] = theirs[above]
    for at, one in theirs.items():
        if at == path or at.startswith(below):
            placed[at] = one
    return _linked(placed)


def _files(entries: Iterable[Entry], other: bool) -> dict[bytes, tuple[Entry, _Group | None]]:
    """By path, each further name of a file as a file of its own, with the group that is one file."""
    found: dict[bytes, tuple[Entry, _Group | None]] = {}
    for entry in entries:
        if entry.kind is EntryKind.HARDLINK:
            found[entry.path] = (found[entry.target][0]._replace(path=entry.path), (other, entry.target))
        elif entry.kind is EntryKind.FILE:
            found[entry.path] = (entry, (other, entry.path))
        else:
            found[entry.path] = (entry, None)
    return found


def _linked(placed: dict[bytes, tuple[Entry, _Group | None]]) -> list[Entry]:
    firsts: dict[_Group, bytes] = {}
    linked: list[Entry] = []
    for path in sorted(placed):
        entry, group = placed[path]
        first = path if group is None else firsts.setdefault(group, path)
        linked.append(entry if first == path else Entry(path, EntryKind.HARDLINK, 0, 0, target=first))
    return linked


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(len(parts))]
