"""Trees: pages, roots and entries come back as they were, and what is no tree is refused with the path's name."""

from __future__ import annotations

import pytest
from hypothesis import given

from atoll.domain.errors import InvalidInput
from atoll.domain.tree import (
    PAGE_ENTRIES_MAX,
    Entry,
    EntryKind,
    Page,
    Root,
    check_entries,
    chunk_id,
    decode_entry,
    decode_page,
    decode_root,
    encode_entry,
    encode_page,
    encode_root,
    pages,
)
from tests.domain.trees import file, folder, root, sparse, trees


@given(trees())
def test_a_valid_tree_passes_and_survives_its_pages(tree: list[Entry]) -> None:
    assert list(check_entries(tree)) == tree
    decoded = [entry for _, data in pages(tree) for entry in decode_page(data)]
    assert decoded == tree


def test_every_field_survives() -> None:
    odd_name, xattrs = b"x/\xff\n\"'", ((b"user.\xfe", b"\0"),)
    entry = Entry(odd_name, EntryKind.FILE, 0o4755, -5, 7, 8, 3, chunk_id(b"abc"), b"", ((0, 1),), xattrs)
    assert decode_entry(encode_entry(entry)) == entry
    listed = Root((Page(chunk_id(b"p"), b"\xff", 3),), 3, 9)
    assert decode_root(encode_root(listed)) == listed


def test_a_change_moves_no_border_of_other_pages() -> None:
    tree = [root(), *(file(b"f%06d" % number) for number in range(20_000))]
    before = {data for _, data in pages(tree)}
    tree.insert(10_000, file(b"f009999x"))
    after = {data for _, data in pages(tree)}
    assert len(before) > 10
    assert len(after - before) == 1
    assert max(len(entries) for entries, _ in pages(tree)) <= PAGE_ENTRIES_MAX


@pytest.mark.parametrize(
    "path",
    [b"/a", b"a//b", b"a/../b", b"..", b".", b"a/", b"a\0b", b"x" * 256, b"a/" * 300 + b"b", b"none/b", b"link/b"],
)  # fmt: skip
def test_paths_that_no_tree_has(path: bytes) -> None:
    tree = [root(), folder(b"a"), Entry(b"link", EntryKind.SYMLINK, 0, 0, target=b"a")]
    with pytest.raises(InvalidInput, match="path") as caught:
        list(check_entries(sorted([*tree, file(path)])))
    assert caught.value.field == "path"


@pytest.mark.parametrize(
    "tree",
    [
        [],
        [file(b"a")],
        [root(), root()],
        [root(), file(b"b"), file(b"a")],
        [root(), file(b"a"), file(b"a")],
        [root(), file(b"a")._replace(size=4, chunks=b"")],
        [root(), file(b"a")._replace(holes=((2, 1), (0, 1)))],
        [root(), sparse(b"a")._replace(holes=((1, 2**20),))],
        [root(), folder(b"a")._replace(size=1)],
        [root(), Entry(b"a", EntryKind.SYMLINK)],
        [root(), Entry(b"a", EntryKind.HARDLINK, target=b"b"), file(b"b")],
        [root(), folder(b"a"), Entry(b"b", EntryKind.HARDLINK, target=b"a")],
    ],
)
def test_what_is_no_tree(tree: list[Entry]) -> None:
    with pytest.raises(InvalidInput):
        list(check_entries(tree))


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b'["a","x",0,0]', b'["a","f",-1,0]', b'["a","f",true,0]', b'["a","f",0,0,0,0,-1]', b"[" * 9000,
     b'["a","f",0,0,0,0,1,"!!"]', b'["a","f",0,0,0,0,0,"","",[[1]]]', b'[1,"f",0,0]'],
)  # fmt: skip
def test_lines_that_are_no_entries(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_entry(line)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"version":2}', b'{"version":1,"pages":[["zz","",1]],"entries":1,"bytes":1}']
)
def test_what_is_no_root(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_root(data)


def test_an_empty_page_has_no_entries() -> None:
    assert decode_page(encode_page([])) == []


def test_more_names_than_a_file_system_allows_are_no_tree() -> None:
    names = [Entry(b"b%05d" % at, EntryKind.HARDLINK, 0, target=b"a") for at in range(65_000)]
    assert len(list(check_entries([root(), file(b"a"), *names[1:]]))) == 65_001
    with pytest.raises(InvalidInput, match="65000 names"):
        list(check_entries([root(), file(b"a"), *names]))
