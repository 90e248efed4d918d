"""What a sync remembers comes back as it was, whatever names, times and contents there are."""

from dataclasses import replace
from pathlib import Path

import pytest

from atoll.domain.tree import CHUNK_BYTES, Entry, EntryKind, chunk_id
from atoll.sdk.sync.contents import Stamp
from atoll.sdk.sync.index import Index, IndexFile

TREE = {
    entry.path: entry
    for entry in (
        Entry(b"\xff\n", EntryKind.DIRECTORY, 0o2755, -5),
        Entry(b"\xff\n/empty", EntryKind.FILE, 0o4755, 2**63 - 1),
        Entry(b"link", EntryKind.SYMLINK, 0, 7, target=b"\xfe\n"),
        Entry(b"long", EntryKind.FILE, size=CHUNK_BYTES + 1, chunks=chunk_id(b"1") + bytes(32), holes=((0, 5), (9, 2))),
        Entry(b"pipe", EntryKind.FIFO, 0o600),
        Entry(b"x", EntryKind.FILE, size=1, chunks=chunk_id(b"x"), xattrs=((b"user.\xfd", b"\0\xff"),)),
        Entry(b"y", EntryKind.HARDLINK, 0, target=b"x"),
    )
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexFile:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = IndexFile("http://server", "ws", "/folder")
    file.path.parent.mkdir(parents=True)
    return file


def test_an_index_comes_back_as_it_was(file: IndexFile) -> None:
    base = {path: entry for path, entry in TREE.items() if path != b"x"}
    base[b"pipe"] = base[b"pipe"]._replace(mode=0o644)
    folder = {path: (Stamp(2**64 - 1, entry.size, entry.mtime_ns, 3), entry) for path, entry in TREE.items()}
    for index in (Index(), Index("rev_1", TREE, base, folder), Index("rev_2", {}, base, {})):
        file.save(index)
        assert file.load() == index


def test_a_time_that_no_column_holds_is_looked_at_again(file: IndexFile) -> None:
    late = TREE[b"pipe"]._replace(mtime_ns=2**63)
    index = Index("rev_1", TREE, TREE, {b"pipe": (Stamp(1, 0, 2**63, 3), late)})
    file.save(index)
    assert file.load() == replace(index, folder={})
