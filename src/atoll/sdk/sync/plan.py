"""What has to be done on either side: a three-way comparison of folder, workspace and what both were at the last sync.

Nothing is overwritten that changed since then: both versions are kept, and told as a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_changes import Change, changes, same_but_times
from atoll.domain.tree_merge import MergeConflict, merge
from atoll.sdk.sync.ignore import Rules
from atoll.sdk.sync.values import Direction

Tree = dict[bytes, Entry]  # sorted by path, without the root
ROOT = Entry(b"", EntryKind.DIRECTORY, 0o755)


@dataclass
class Plan:
    """Trees without what is left out. `to_workspace` and `to_folder` lead each side to its `..._after`."""

    base: Tree
    folder: Tree
    workspace: Tree
    folder_after: Tree
    workspace_after: Tree
    conflicts: list[MergeConflict] = field(default_factory=list[MergeConflict])
    not_deleted: list[bytes] = field(default_factory=list[bytes])
    pulled_aside: set[bytes] = field(default_factory=set[bytes])  # paths whose conflict only the folder got to see

    @cached_property
    def to_workspace(self) -> list[Change]:
        return _changes(self.workspace, self.workspace_after)

    @cached_property
    def to_folder(self) -> list[Change]:
        return _changes(self.folder, self.folder_after)

    def agreed(self, folder: Tree, workspace: Tree) -> Tree:
        """What both sides have in common when they are as given: the base of the next plan."""
        agreed = dict(self.base)
        for path, there in [one for one in workspace.items() if agreed.get(one[0]) is not one[1]]:
            here = folder.get(path)
            if path in self.pulled_aside or (here is not None and _alike(here, there)):
                agreed[path] = there
        for path in self.base.keys() - folder.keys() - workspace.keys():
            del agreed[path]
        return agreed


def plan(
    base: Tree, folder: Tree, workspace: Tree, rules: Rules, left_out: Iterable[bytes], *,
    direction: Direction, delete: bool, label: str,
) -> Plan:  # fmt: skip
    """`label` names the workspace's side in conflicts; `left_out` are paths of the folder that cannot travel."""
    hidden = frozenset(left_out)
    base, workspace = (_visible(tree, folder, rules, hidden) for tree in (base, workspace))
    inputs = _Inputs(dict(base), folder, workspace)
    if direction is Direction.PUSH:
        inputs.base, inputs.folder = _one_way(base, folder, workspace, delete)
    elif direction is Direction.PULL:
        inputs.base, inputs.workspace = _one_way(base, workspace, folder, delete)
    elif not delete:
        inputs.keep_deleted()
    merged, conflicts = inputs.merged(label)
    found = Plan(base, folder, workspace, folder, workspace, conflicts)
    if direction is not Direction.PULL:
        found.workspace_after = _without(merged, inputs.gone_there)
    if direction is not Direction.PUSH:
        found.folder_after = _without(merged, inputs.gone_here)
    if direction is Direction.PULL:
        found.pulled_aside = {conflict.path for conflict in conflicts}
    found.not_deleted = sorted(inputs.gone_here | inputs.gone_there)
    return found


class _Inputs:
    """The three trees as the merge is to see them."""

    def __init__(self, base: Tree, folder: Tree, workspace: Tree) -> None:
        self.base, self.folder, self.workspace = base, folder, workspace
        self.gone_here: set[bytes] = set()
        self.gone_there: set[bytes] = set()

    def keep_deleted(self) -> None:
        """What one side deleted and the other left as it was stays so: neither deleted there nor brought back."""
        here, there = self.folder, self.workspace
        self.gone_here = _only_deleted(self.base, here, there)
        self.gone_there = _only_deleted(self.base, there, here)
        if self.gone_here:
            self.folder = _sorted(here | {path: there[path] for path in self.gone_here})
        if self.gone_there:
            self.workspace = _sorted(there | {path: here[path] for path in self.gone_there})

    def merged(self, label: str) -> tuple[Tree, list[MergeConflict]]:
        if _same(self.base, self.workspace):
            return self.folder, []
        if _same(self.base, self.folder):
            return self.workspace, []
        base, ours, theirs = ((ROOT, *_sorted(side).values()) for side in (self.base, self.folder, self.workspace))
        result = merge(base, ours, theirs, label)
        return {entry.path: entry for entry in result.entries if entry.path}, result.conflicts


def _one_way(base: Tree, source: Tree, target: Tree, delete: bool) -> tuple[Tree, Tree]:
    """(base, source) that make the target have all that the source has; with `delete` nothing else."""
    wanted = dict(base)
    seen = source
    for path in source.keys() - target.keys():
        wanted.pop(path, None)  # it is brought back
    missing = target.keys() - source.keys()
    if delete:
        wanted |= {path: target[path] for path in missing}
    elif missing:
        for path in missing:
            wanted.pop(path, None)
        seen = _sorted(source | {path: target[path] for path in missing if not _blocked(path, source)})
        wanted |= {path: target[path] for path in missing if path not in seen}
    return wanted, seen


def _only_deleted(base: Tree, here: Tree, there: Tree) -> set[bytes]:
    return {
        path
        for path in base.keys() - here.keys()
        if path in there and _alike(base[path], there[path]) and not _blocked(path, here)
    }


def _blocked(path: bytes, tree: Tree) -> bool:
    """Whether something that is no folder stands above it."""
    while path := path.rpartition(b"/")[0]:
        entry = tree.get(path)
        if entry is not None:
            return entry.kind is not EntryKind.DIRECTORY
    return False


def _without(tree: Tree, gone: set[bytes]) -> Tree:
    """Without those paths, but for folders in which something lives on."""
    if not gone:
        return tree
    needed: set[bytes] = set()
    for path in tree.keys() - gone:
        while path := path.rpartition(b"/")[0]:
            needed.add(path)
    return {path: entry for path, entry in tree.items() if path not in gone or path in needed}


def _visible(tree: Tree, folder: Tree, rules: Rules, hidden: frozenset[bytes]) -> Tree:
    """Without what is left out. What was found in the folder is none of that."""
    out = {path for path in tree.keys() - folder.keys() if _is_out(path, tree[path], rules, hidden)}
    if not out:
        return tree
    kept = {path: entry for path, entry in tree.items() if path not in out}
    for path, entry in kept.items():
        if entry.kind is EntryKind.HARDLINK and entry.target in out:
            kept[path] = tree[entry.target]._replace(path=path)
    return kept


def _is_out(path: bytes, entry: Entry, rules: Rules, hidden: frozenset[bytes]) -> bool:
    if rules.leaves_out(path, entry.kind is EntryKind.DIRECTORY):
        return True
    while path and hidden:
        if path in hidden:
            return True
        path = path.rpartition(b"/")[0]
    return False


def _changes(before: Tree, after: Tree) -> list[Change]:
    """What leads from one to the other. Most entries are the very same in both."""
    olds = [entry for path, entry in before.items() if after.get(path) is not entry]
    news = [entry for path, entry in after.items() if before.get(path) is not entry]
    return list(changes(olds, news))


def _same(one: Tree, other: Tree) -> bool:
    """But for the times of folders."""
    return one == other or (
        one.keys() == other.keys()
        and all(entry is other[path] or _alike(entry, other[path]) for path, entry in one.items())
    )


def _alike(one: Entry, other: Entry) -> bool:
    return one is other or one == other or (one.kind is EntryKind.DIRECTORY and same_but_times(one, other))


def _sorted(tree: Mapping[bytes, Entry]) -> Tree:
    return {path: tree[path] for path in sorted(tree)}
