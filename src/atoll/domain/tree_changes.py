"""Changes between two trees: one for each path at which something else stands now."""

from __future__ import annotations

import posixpath
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from atoll.domain.tree import Entry, EntryKind


class ChangeKind(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"
    RENAMED = "renamed"  # the same contents stood at another path, which is gone


@dataclass(frozen=True, slots=True)
class Change:
    """What stood at `path` and what stands there now; of a renamed file `before` is the entry at `renamed_from`."""

    path: bytes
    before: Entry | None
    after: Entry | None
    renamed_from: bytes | None = None

    @property
    def kind(self) -> ChangeKind:
        if self.renamed_from is not None:
            return ChangeKind.RENAMED
        if self.before is None:
            return ChangeKind.ADDED
        return ChangeKind.DELETED if self.after is None else ChangeKind.CHANGED


def changes(before: Iterable[Entry], after: Iterable[Entry], *, directory_times: bool = False) -> Iterator[Change]:
    """Both sorted by path. A directory whose only change is its times is left out, unless `directory_times`."""
    olds, news = iter(before), iter(after)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.path < new.path):
            assert old is not None
            yield Change(old.path, old, None)
            old = next(olds, None)
        elif old is None or new.path < old.path:
            yield Change(new.path, None, new)
            new = next(news, None)
        else:
            if old != new and (directory_times or not same_but_times(old, new, EntryKind.DIRECTORY)):
                yield Change(new.path, old, new)
            old, new = next(olds, None), next(news, None)


def same_but_times(one: Entry, other: Entry, kind: EntryKind | None = None) -> bool:
    """Whether only their times differ, if anything; of entries of another kind than `kind` it is not said."""
    if kind is not None and one.kind is not kind:
        return False
    return one._replace(mtime_ns=other.mtime_ns) == other


def with_renames(found: Iterable[Change]) -> list[Change]:
    """The same changes, each deleted file that was added elsewhere with equal contents told as one: renamed."""
    all_found = list(found)
    gone = _Gone(change for change in all_found if change.after is None)
    renamed: dict[bytes, Change] = {}
    for change in all_found:
        if change.before is None and change.after is not None and _has_contents(change.after):
            old = gone.take(change.after, change.path)
            if old is not None:
                renamed[old.path] = replace(change, before=old.before, renamed_from=old.path)
    arrived = {change.path: change for change in renamed.values()}
    return [arrived.get(change.path, change) for change in all_found if change.path not in renamed]


class _Gone:
    """Deleted files by their contents; each is taken once. As quick for a million equal ones as for one."""

    def __init__(self, deleted: Iterable[Change]) -> None:
        self._waiting: dict[tuple[bytes, str, bytes], deque[Change]] = defaultdict(deque)
        self._taken: set[bytes] = set()
        for change in deleted:
            if change.before is not None and _has_contents(change.before):
                for key in _likenesses(change.before, change.path):
                    self._waiting[key].append(change)

    def take(self, entry: Entry, path: bytes) -> Change | None:
        """The likeliest one that had the entry's contents: of the same name, else in the same folder, else any."""
        for key in _likenesses(entry, path):
            waiting = self._waiting.get(key, ())
            while waiting:
                change = waiting.popleft()
                if change.path not in self._taken:
                    self._taken.add(change.path)
                    return change
        return None


def _likenesses(entry: Entry, path: bytes) -> Iterator[tuple[bytes, str, bytes]]:
    """What it has in common with another place of its contents, the closest first."""
    yield entry.chunks, "name", posixpath.basename(path)
    yield entry.chunks, "folder", posixpath.dirname(path)
    yield entry.chunks, "contents", b""


def _has_contents(entry: Entry) -> bool:
    return entry.kind is EntryKind.FILE and entry.size > 0
