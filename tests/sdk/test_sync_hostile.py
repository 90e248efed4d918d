from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from atoll.domain.errors import AtollError
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.tree_changes import Change
from atoll.sdk import Corrupt, InvalidInput, Workspace
from atoll.sdk.sync.apply import Applying
from atoll.sdk.sync.folder import Folder
from atoll.sdk.sync.ignore import Rules, of_folder
from atoll.sdk.sync.scan import scan
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.test_sync import picture


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_text("secret")
    return made


def assert_untouched(outside: Path) -> None:
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert (outside / "secret").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("path", [b"../outside/x", b"/x", b"a/../../outside/x", b".", b"..", b"a//b", b"a\0b"])
def test_a_path_that_leads_out_is_refused(
    mine: Workspace,
    stored: Stored,
    folder: Path,
    outside: Path,
    path: bytes,
) -> None:
    tree = {path: Entry(path, EntryKind.SYMLINK, 0, 0, target=b"x")}
    stored.add(tree, "process")
    with pytest.raises(InvalidInput):
        mine.pull(folder)
    assert_untouched(outside)
    assert not list(folder.iterdir())


def test_nothing_is_written_through_a_link_of_the_workspace(
    mine: Workspace,
    stored: Stored,
    folder: Path,
    outside: Path,
) -> None:
    link = Entry(b"out", EntryKind.SYMLINK, 0, 0, target=os.fsencode(outside))
    written = stored.write("out/x", b"evil")
    stored.add({b"out": link, b"out/x": written.tree[b"out/x"]}, "process")
    with pytest.raises(InvalidInput, match="parent"):
        mine.pull(folder)
    assert_untouched(outside)


def test_nothing_is_written_through_a_link_that_somebody_puts_there(folder: Path, outside: Path) -> None:
    """The directory was one when the folder was looked at."""
    (folder / "dir").mkdir()
    (folder / "dir" / "secret").write_text("mine")
    seen = scan(str(folder), Rules(of_folder(str(folder), {})), {})
    before = seen.entries
    (folder / "dir" / "secret").unlink()
    (folder / "dir").rmdir()
    (folder / "dir").symlink_to(outside)
    after = {
        b"dir": Entry(b"dir", EntryKind.DIRECTORY, 0o700, 1),
        b"dir/fifo": Entry(b"dir/fifo", EntryKind.FIFO, 0o600, 1),
        b"dir/new": Entry(b"dir/new", EntryKind.FILE, 0o600, 1),
        b"dir/sub": Entry(b"dir/sub", EntryKind.DIRECTORY, 0o700, 1),
    }
    found = [Change(path, before.get(path), entry) for path, entry in after.items()]
    found.append(Change(b"dir/secret", before[b"dir/secret"], None))
    opened = Folder(str(folder))
    try:
        applying = Applying(opened, found, after, before, seen.stamps)
        applying.begin()
        assert list(applying.receive()) == []
        applying.finish()
    finally:
        opened.close()
    assert_untouched(outside)
    assert (outside.stat().st_mode & 0o777) == 0o755
    assert {b"dir/fifo", b"dir/new", b"dir/secret", b"dir/sub"} <= applying.disturbed
    assert (folder / "dir").is_symlink()


def test_a_link_out_is_kept_as_a_link(mine: Workspace, stored: Stored, folder: Path, outside: Path) -> None:
    stored.put(Entry(b"out", EntryKind.SYMLINK, 0, 1, target=os.fsencode(outside)))
    mine.pull(folder)
    assert os.readlink(folder / "out") == str(outside)
    stored.remove("out")
    stored.write("out/secret", b"now a directory")
    mine.sync(folder, delete=True)
    assert (folder / "out" / "secret").read_text() == "now a directory"
    assert_untouched(outside)


def test_a_chunk_that_is_not_what_it_says_is_refused(
    mine: Workspace,
    stored: Stored,
    folder: Path,
) -> None:
    stored.write("good", b"good")
    revision = stored.write("file", b"contents")
    stored.chunks[revision.tree[b"file"].chunks] = b"CONTENTS"
    with pytest.raises(Corrupt):
        mine.pull(folder)
    assert not (folder / "file").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".atoll")]
    del stored.chunks[revision.tree[b"file"].chunks]
    with pytest.raises(Corrupt, match="lost contents of 'file'"):
        mine.pull(folder)


def test_what_changes_while_it_is_written_is_left_alone(
    mine: Workspace,
    stored: Stored,
    folder: Path,
    fake: FakeWorkspaces,
) -> None:
    (folder / "file").write_text("base")
    mine.sync(folder)
    stored.write("file", b"theirs")
    number = stored.head.number

    def meddle(what: str) -> None:
        if what == "POST /sync/fetch":
            fake.before = lambda what: None
            (folder / "file").write_text("mine, just now")

    fake.before = meddle
    report = mine.sync(folder)
    assert (folder / "file").read_text() == "mine, just now"
    assert (folder / f"file.conflict-{number}").read_text() == "theirs"
    assert len(report.conflicts) == 1


def test_leftovers_of_a_killed_sync_are_swept(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "dir").mkdir()
    (folder / "dir" / ".atoll-part-0123456789abcdef").write_text("half")
    mine.push(folder)
    assert list(stored.head.tree) == [b"dir"]
    mine.sync(folder)
    assert not list((folder / "dir").iterdir())


@pytest.mark.parametrize("seed", range(4))
def test_two_folders_and_a_workspace_come_to_be_the_same(
    mine: Workspace,
    stored: Stored,
    tmp_path: Path,
    seed: int,
) -> None:
    """Random edits in two folders, synced in turn: in the end all are equal, and no contents were lost."""
    chance = random.Random(seed)
    folders = [tmp_path / "one", tmp_path / "two"]
    for each in folders:
        each.mkdir()
    for turn in range(8):
        here = folders[turn % 2]
        for _ in range(chance.randrange(1, 6)):
            _edit(here, chance)
        mine.sync(here, delete=True)
    for each in (*folders, *folders):
        mine.sync(each, delete=True)
    assert _timeless(folders[0]) == _timeless(folders[1])
    for each in folders:
        assert not mine.sync(each, delete=True).changed
    ever = {stored.contents(path.decode(), revision.tree) for revision in stored.revisions
            for path, entry in revision.tree.items() if entry.kind is EntryKind.FILE}  # fmt: skip
    last = {path.read_bytes() for path in folders[0].rglob("*") if path.is_file() and not path.is_symlink()}
    assert last <= ever


def _timeless(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Without the times of directories, and naming files by themselves."""
    return {path: (one[0], None if one[2] is None else one[1], *one[2:]) for path, one in picture(folder).items()}


def _edit(folder: Path, chance: random.Random) -> None:
    names = ["a", "b", "c", "d/a", "d/b", "d/e/a", "f"]
    path = folder / chance.choice(names)
    what = chance.random()
    try:
        if what < 0.55:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                path.write_bytes(chance.randbytes(chance.choice([0, 10, 5_000])))
        elif what < 0.7:
            path.unlink(missing_ok=True)
        elif what < 0.8:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(chance.choice(names))
        elif what < 0.9:
            path.rename(folder / chance.choice(names))
        else:
            path.chmod(chance.choice([0o600, 0o755]))
    except OSError:
        pass  # a folder is in the way


def test_an_unreadable_index_costs_nothing_but_time(mine: Workspace, folder: Path, tmp_path: Path) -> None:
    (folder / "file").write_text("1")
    mine.sync(folder)
    (index,) = (tmp_path / "state" / "atoll" / "sync").glob("*.index")
    whole = index.read_bytes()
    for broken in (b"", b"{broken", b"{}", b"null", whole[:-1], whole[:-9] + bytes(9)):
        index.write_bytes(broken)
        assert not mine.sync(folder).changed


def test_two_syncs_of_one_folder_exclude_each_other(mine: Workspace, folder: Path) -> None:
    from atoll.sdk.sync.index import IndexFile

    (folder / "file").write_text("1")
    index = IndexFile(mine._api.config.url, mine.id, os.path.realpath(folder))
    with index.locked(), pytest.raises(AtollError, match="another sync"):
        mine.sync(folder)
    assert mine.sync(folder).changed
