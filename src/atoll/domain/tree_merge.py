"""Three-way merge of trees: what each side changed since their common base comes together, and no side loses a byte.

Where both changed the same path differently, ours stays and theirs stands beside it as `name.conflict-<label>`; where
one deleted what the other changed, the change stays. Both are reported as conflicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_changes import same_but_times

BOTH_CHANGED = "changed on both sides"
OURS_DELETED = "deleted on our side, changed on theirs"
THEIRS_DELETED = "deleted on their side, changed on ours"


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """A path that both sides changed. `kept` is where theirs stands now, or `path` where only one side is left."""

    path: bytes
    kept: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged tree, sorted, and what could not be decided."""

    entries: list[Entry]
    conflicts: list[MergeConflict]


def merge(base: Iterable[Entry], ours: Iterable[Entry], theirs: Iterable[Entry], label: str) -> Merged:
    """The tree that has the changes of both since `base`. `label` names their side, as a revision's number."""
    return _Merge(_Side(base), _Side(ours), _Side(theirs), label.encode()).run()


class _Side:
    """A tree by path, with each further name of a file as a file of its own; `first` tells which names are one."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.at: dict[bytes, Entry] = {}
        self.first: dict[bytes, bytes] = {}
        for entry in entries:
            if entry.kind is EntryKind.HARDLINK:
                self.first[entry.path] = entry.target
                entry = self.at[entry.target]._replace(path=entry.path)
            elif entry.kind is EntryKind.FILE:
                self.first[entry.path] = entry.path
            self.at[entry.path] = entry


class _Merge:
    def __init__(self, base: _Side, ours: _Side, theirs: _Side, label: bytes) -> None:
        self._base, self._ours, self._theirs = base, ours, theirs
        self._suffix = b".conflict-" + label
        self._names = base.at.keys() | ours.at.keys() | theirs.at.keys()
        self._placed: dict[bytes, Entry] = {}
        self._aside: dict[bytes, bytes] = {}  # their path -> where it stands instead
        self._conflicts: list[MergeConflict] = []

    def run(self) -> Merged:
        # Ours first: what of theirs does not fit beside it finds another name.
        late: list[tuple[Entry, bool]] = []
        for path in sorted(self._names):
            ours, theirs = self._ours.at.get(path), self._theirs.at.get(path)
            takes_ours, conflict = _decide(self._base.at.get(path), ours, theirs)
            if takes_ours and ours is not None:
                self._place(ours, path)
            elif not takes_ours and theirs is not None:
                late.append((theirs, False))
            if conflict == BOTH_CHANGED and theirs is not None:
                late.append((theirs, True))
            elif conflict:
                self._conflicts.append(MergeConflict(path, path, conflict))
        for entry, conflicting in late:
            self._place_theirs(entry, conflicting=conflicting)
        return Merged(list(self._linked()), sorted(self._conflicts, key=lambda one: one.path))

    def _place(self, entry: Entry, path: bytes) -> None:
        self._make_parents(path)
        self._placed[path] = entry._replace(path=path)

    def _place_theirs(self, entry: Entry, *, conflicting: bool) -> None:
        path = self._moved(entry.path)
        there = self._placed.get(path)
        if there is not None and not (there.kind is entry.kind is EntryKind.DIRECTORY):
            conflicting = True  # something of ours lives on in a folder that they replaced
        if conflicting:
            path = self._move_aside(entry.path, path)
        self._place(entry, path)

    def _moved(self, path: bytes) -> bytes:
        """Where their path stands, when a folder above it had to make way for something of ours."""
        for above in _parents(path):
            ours = self._placed.get(above)
            if above not in self._aside and ours is not None and ours.kind is not EntryKind.DIRECTORY:
                self._move_aside(above, above)
            if above in self._aside:
                return self._aside[above] + path[len(above) :]
        return path

    def _move_aside(self, theirs: bytes, path: bytes) -> bytes:
        name, number = path + self._suffix, 2
        while name in self._names or name in self._placed:
            name, number = path + self._suffix + b"-%d" % number, number + 1
        self._aside[theirs] = name
        self._conflicts.append(MergeConflict(theirs, name, BOTH_CHANGED))
        return name

    def _make_parents(self, path: bytes) -> None:
        """A folder that one side deleted lives on while the other side changed something in it."""
        for above in _parents(path):
            if above not in self._placed:
                sides = (self._ours.at, self._theirs.at, self._base.at)
                known = next((side[above] for side in sides if above in side), None)
                folder = known is not None and known.kind is EntryKind.DIRECTORY
                self._placed[above] = known if folder and known else Entry(above, EntryKind.DIRECTORY, 0o755)

    def _linked(self) -> Iterator[Entry]:
        """The placed entries, sorted; further names of one file are hardlinks again."""
        named: dict[tuple[int, bytes], bytes] = {}
        for path in sorted(self._placed):
            entry = self._placed[path]
            groups = [
                (number, side.first[path])
                for number, side in enumerate((self._ours, self._theirs))
                if path in side.first and side.at[path] == entry
            ]
            target = next((named[group] for group in groups if group in named), path)
            for group in groups:
                named.setdefault(group, target)
            linked = target != path and self._placed[target]._replace(path=path) == entry
            yield Entry(path, EntryKind.HARDLINK, 0, 0, target=target) if linked else entry


def _decide(base: Entry | None, ours: Entry | None, theirs: Entry | None) -> tuple[bool, str]:
    """(whether ours stands at the path, else theirs; the conflict's reason or "")."""
    if ours == theirs or theirs == base:
        return True, ""
    if ours == base:
        return False, ""
    ours_touched = not _alike(base, ours)
    theirs_touched = not _alike(base, theirs)
    if not theirs_touched or _alike(ours, theirs):
        return True, ""
    if not ours_touched:
        return False, ""
    if ours is None:
        return False, OURS_DELETED
    if theirs is None:
        return True, THEIRS_DELETED
    return True, "" if ours.kind is theirs.kind is EntryKind.DIRECTORY else BOTH_CHANGED


def _alike(one: Entry | None, other: Entry | None) -> bool:
    return one == other or (one is not None and other is not None and same_but_times(one, other))


def _parents(path: bytes) -> Iterator[bytes]:
    """The folders above a path, the root first."""
    if path:
        yield b""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
