"""Merge: what one side did stands, what both did is kept twice, and the result is always a tree."""

from __future__ import annotations

from hypothesis import given

from atoll.domain.tree import Entry, EntryKind, check_entries
from atoll.domain.tree_merge import BOTH_CHANGED, OURS_DELETED, THEIRS_DELETED, MergeConflict, merge
from tests.domain.trees import file, folder, root, trees


def contents(tree: list[Entry]) -> dict[bytes, tuple[bytes, bytes]]:
    """What stands at each path that is no folder: chunks or a symlink's text."""
    found: dict[bytes, tuple[bytes, bytes]] = {}
    for entry in tree:
        if entry.kind is EntryKind.HARDLINK:
            found[entry.path] = found[entry.target]
        elif entry.kind is not EntryKind.DIRECTORY:
            found[entry.path] = (entry.chunks, entry.target)
    return found


@given(trees(), trees())
def test_one_side_alone_wins(base: list[Entry], other: list[Entry]) -> None:
    for merged in (merge(base, base, other, "2"), merge(base, other, base, "2"), merge(base, other, other, "2")):
        assert merged.entries == other
        assert merged.conflicts == []


@given(trees(), trees(), trees())
def test_no_side_loses_a_byte(base: list[Entry], ours: list[Entry], theirs: list[Entry]) -> None:
    merged = merge(base, ours, theirs, "2")
    assert list(check_entries(merged.entries)) == merged.entries
    was, mine, yours, now = contents(base), contents(ours), contents(theirs), contents(merged.entries)
    moved = {conflict.path: conflict.kept for conflict in merged.conflicts}
    for path, what in mine.items():
        if was.get(path) != what:
            assert now[path] == what, "ours stays where it is"
    for path, what in yours.items():
        if was.get(path) != what:
            places = [path, *(kept + path[len(old) :] for old, kept in moved.items() if _within(path, old))]
            assert any(now.get(place) == what for place in places), "theirs stands there or beside it"


def _within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")


@given(trees(), trees(), trees())
def test_what_neither_touched_nor_deleted_stays(base: list[Entry], ours: list[Entry], theirs: list[Entry]) -> None:
    now = contents(merge(base, ours, theirs, "2").entries)
    mine, yours = contents(ours), contents(theirs)
    for path, what in contents(base).items():
        if mine.get(path) == what == yours.get(path):
            assert now[path] == what
        elif path not in mine and path not in yours:
            assert path not in now


def test_both_changed_a_file() -> None:
    merged = merge([root(), file(b"a")], [root(), file(b"a", b"mine")], [root(), file(b"a", b"theirs")], "7")
    assert merged.entries == [root(), file(b"a", b"mine"), file(b"a.conflict-7", b"theirs")]
    assert merged.conflicts == [MergeConflict(b"a", b"a.conflict-7", BOTH_CHANGED)]


def test_a_free_name_is_found() -> None:
    ours = [root(), file(b"a", b"mine"), file(b"a.conflict-7")]
    merged = merge([root(), file(b"a")], ours, [root(), file(b"a", b"theirs")], "7")
    assert merged.conflicts == [MergeConflict(b"a", b"a.conflict-7-2", BOTH_CHANGED)]


def test_a_change_outlives_a_deletion() -> None:
    base = [root(), folder(b"d"), file(b"d/a")]
    changed = [root(), folder(b"d"), file(b"d/a", b"new")]
    gone = [root()]
    assert merge(base, gone, changed, "7").entries == changed
    assert merge(base, gone, changed, "7").conflicts == [MergeConflict(b"d/a", b"d/a", OURS_DELETED)]
    assert merge(base, changed, gone, "7").entries == changed
    assert merge(base, changed, gone, "7").conflicts == [MergeConflict(b"d/a", b"d/a", THEIRS_DELETED)]


def test_a_touch_does_not_outlive_a_deletion() -> None:
    merged = merge([root(), file(b"a")], [root()], [root(), file(b"a", mtime_ns=5)], "7")
    assert (merged.entries, merged.conflicts) == ([root()], [])


def test_a_file_against_a_folder() -> None:
    base = [root()]
    ours = [root(), file(b"x", b"mine")]
    theirs = [root(), folder(b"x"), file(b"x/y", b"theirs")]
    merged = merge(base, ours, theirs, "7")
    assert [entry.path for entry in merged.entries] == [b"", b"x", b"x.conflict-7", b"x.conflict-7/y"]
    assert merged.conflicts == [MergeConflict(b"x", b"x.conflict-7", BOTH_CHANGED)]


def test_a_folder_that_they_replaced_and_we_added_to() -> None:
    base = [root(), folder(b"x")]
    ours = [root(), folder(b"x"), file(b"x/mine")]
    theirs = [root(), file(b"x", b"theirs")]
    merged = merge(base, ours, theirs, "7")
    assert [entry.path for entry in merged.entries] == [b"", b"x", b"x.conflict-7", b"x/mine"]


def test_hardlinks_stay_hardlinks_and_follow_the_change() -> None:
    def pair(data: bytes) -> list[Entry]:
        return [root(), file(b"a", data), Entry(b"b", EntryKind.HARDLINK, 0, 0, target=b"a")]

    ours = [*pair(b"one"), file(b"c")]
    merged = merge(pair(b"one"), ours, pair(b"two"), "7")
    assert merged.entries == [*pair(b"two"), file(b"c")]
    linked = merge([root(), file(b"a")], [root(), file(b"a"), file(b"c")], pair(b"one"), "7")
    assert linked.entries == [*pair(b"one"), file(b"c")]
