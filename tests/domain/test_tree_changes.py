"""Changes: one for each path, renames told as such, folders' times left out."""

from __future__ import annotations

import time

from hypothesis import given

from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_changes import ChangeKind, changes, with_renames
from tests.domain.trees import file, folder, root, trees


@given(trees(), trees())
def test_the_changes_applied_to_one_tree_give_the_other(before: list[Entry], after: list[Entry]) -> None:
    result = {entry.path: entry for entry in before}
    for change in changes(before, after, directory_times=True):
        assert change.before == result.pop(change.path, None)
        if change.after is not None:
            result[change.path] = change.after
    assert [result[path] for path in sorted(result)] == after


@given(trees(), trees())
def test_renames_tell_each_path_once(before: list[Entry], after: list[Entry]) -> None:
    plain = list(changes(before, after))
    told = with_renames(plain)
    paths = [change.path for change in told] + [c.renamed_from for c in told if c.renamed_from is not None]
    assert sorted(paths) == [change.path for change in plain]


def test_kinds() -> None:
    before = [root(), file(b"changed"), file(b"gone", b"two"), file(b"old", b"three"), folder(b"same", mtime_ns=1)]
    after = [root(5), file(b"changed", b"two!"), file(b"fresh"), file(b"new", b"three"), folder(b"same", mtime_ns=2)]
    told = {change.path: change for change in with_renames(changes(before, after))}
    assert {path: change.kind for path, change in told.items()} == {
        b"changed": ChangeKind.CHANGED,
        b"fresh": ChangeKind.ADDED,
        b"gone": ChangeKind.DELETED,
        b"new": ChangeKind.RENAMED,
    }
    assert told[b"new"].renamed_from == b"old"


def test_a_rename_prefers_the_same_name() -> None:
    before = [root(), folder(b"a"), file(b"a/x"), file(b"a/y")]
    after = [root(), folder(b"a"), folder(b"b"), file(b"b/y")]
    told = {change.path: change.renamed_from for change in with_renames(changes(before, after))}
    assert told == {b"a/x": None, b"b": None, b"b/y": b"a/y"}


def test_a_folder_that_became_a_file() -> None:
    (change,) = changes([root(), folder(b"a")], [root(), file(b"a")])
    assert change.before is not None
    assert change.after is not None
    assert (change.before.kind, change.after.kind) == (EntryKind.DIRECTORY, EntryKind.FILE)


def test_r06_twenty_thousand_equal_files_are_renamed_at_once() -> None:
    before = [root(), *(file(b"a%06d" % at) for at in range(20_000))]
    after = [root(), *(file(b"b%06d" % at) for at in range(20_000))]
    began = time.process_time()
    told = with_renames(changes(before, after))
    assert {change.kind for change in told} == {ChangeKind.RENAMED}
    assert time.process_time() - began < 10


def test_a_rename_keeps_its_name_or_else_its_folder() -> None:
    before = [root(), file(b"a"), folder(b"d"), file(b"d/b"), file(b"n")]
    after = [root(), folder(b"d"), file(b"d/c"), folder(b"e"), file(b"e/n"), file(b"z")]
    told = {change.path: change.renamed_from for change in with_renames(changes(before, after))}
    assert (told[b"d/c"], told[b"e/n"], told[b"z"]) == (b"d/b", b"n", b"a")
