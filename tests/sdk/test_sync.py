from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from atoll.sdk import ConnectionFailed, Workspace
from atoll.sdk.sync.index import state_folder
from tests.sdk.fake_workspaces import FakeWorkspaces
from tests.sdk.fake_workspaces import Workspace as Stored
from tests.sdk.local_process import Refused
from tests.sdk.stand_in import StandIn


def fill(folder: Path) -> None:
    """One of everything that a tree keeps."""
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir(mode=0o750)
    (folder / "a" / "file").write_text("one\n")
    (folder / "a" / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "a" / "run").chmod(0o4755)
    (folder / "a" / "deep" / "big").write_bytes(os.urandom(2_500_000))
    (folder / "link").symlink_to("a/file")
    (folder / "dangling").symlink_to("/nowhere/../at all")
    os.link(folder / "a" / "file", folder / "a" / "same")
    os.mkfifo(folder / "pipe", 0o640)
    with open(folder / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    with open(os.fsencode(folder) + b'/raw\xff\xfename, "x"', "wb") as file:
        file.write(b"raw")
    try:
        os.setxattr(folder / "a" / "file", "user.colour", b"\x00blue")
    except OSError:
        pass
    (folder / "empty").chmod(0o555)
    os.utime(folder / "a" / "file", ns=(1, 1_234_567_890_123_456_789))
    os.utime(folder / "link", ns=(1, 987_654_321_000_000_001), follow_symlinks=False)
    os.utime(folder / "a", ns=(1, 1_111_111_111_111_111_111))


def picture(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """All that can be told of a tree."""
    found: dict[bytes, tuple[object, ...]] = {}
    root = os.fsencode(folder)
    inodes: dict[int, bytes] = {}
    for at, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = os.path.join(at, name)
            status = os.lstat(path)
            what: object = None
            xattrs: object = ()
            if os.path.islink(path):
                what = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    what = file.read()
                xattrs = [(name, os.getxattr(path, name)) for name in os.listxattr(path)]
            first = inodes.setdefault(status.st_ino, os.path.relpath(path, root))
            shown = os.path.relpath(path, root)
            found[shown] = (status.st_mode, status.st_mtime_ns, what, xattrs, first)
    return found


def test_everything_goes_there_and_comes_back(mine: Workspace, folder: Path, tmp_path: Path) -> None:
    fill(folder)
    report = mine.push(folder)
    assert report.revision.number == 2
    assert len(report.sent) == len(picture(folder))
    assert {path.change for path in report.sent} == {"added"}
    report = mine.pull(tmp_path / "other")
    assert picture(tmp_path / "other") == picture(folder)
    assert os.stat(tmp_path / "other" / "sparse").st_blocks * 512 < 1_000_000
    assert len(report.received) == len(picture(folder))
    assert not any("folder" in str(path) for path in [*folder.glob(".atoll*"), *state_folder().glob("*.tmp")])


def test_nothing_new_is_one_request(mine: Workspace, folder: Path, fake: FakeWorkspaces, tmp_path: Path) -> None:
    fill(folder)
    mine.push(folder)
    for call in (mine.push, mine.pull, mine.sync):
        fake.seen.clear()
        report = call(folder)
        assert not report.changed
        assert fake.seen == ["GET /sync/head"]
    other = tmp_path / "other"
    mine.pull(other)
    fake.seen.clear()
    assert not mine.sync(other).changed
    assert fake.seen == ["GET /sync/head"]


def test_one_changed_file_is_three_requests_and_one_chunk(
    mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces
) -> None:
    fill(folder)
    mine.push(folder)
    fake.seen.clear()
    fake.stored = 0
    (folder / "a" / "run").write_bytes(b"changed")
    report = mine.push(folder, message="why")
    assert [(path.path, path.change) for path in report.sent] == [("a/run", "changed")]
    assert fake.seen == ["GET /sync/head", "POST /sync/chunks", "POST /sync/commit"]
    assert fake.stored == 1
    assert stored.contents("a/run") == b"changed"
    assert stored.head.message == "why"


def test_both_sides_changes_come_together(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "here").write_text("1")
    (folder / "there").write_text("1")
    mine.sync(folder)
    (folder / "here").write_text("2")
    stored.write("there", b"2")
    stored.write("new/file", b"3")
    report = mine.sync(folder)
    assert [path.path for path in report.sent] == ["here"]
    assert [path.path for path in report.received] == ["new", "new/file", "there"]
    assert not report.conflicts
    assert stored.contents("here") == b"2"
    assert (folder / "there").read_text() == "2"
    assert (folder / "new" / "file").read_text() == "3"
    assert not mine.sync(folder).changed


def test_a_conflict_keeps_both(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "file").write_text("base")
    mine.sync(folder)
    (folder / "file").write_text("mine")
    stored.write("file", b"theirs")
    number = stored.head.number
    report = mine.sync(folder)
    (conflict,) = report.conflicts
    assert (conflict.path, conflict.kept) == ("file", f"file.conflict-{number}")
    assert (folder / "file").read_text() == "mine"
    assert (folder / conflict.kept).read_text() == "theirs"
    assert stored.contents("file") == b"mine"
    assert stored.contents(conflict.kept) == b"theirs"
    assert not mine.sync(folder).changed


def test_a_pull_never_overwrites_what_changed_here(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "file").write_text("base")
    mine.push(folder)
    (folder / "file").write_text("mine")
    assert not mine.pull(folder).changed
    stored.write("file", b"theirs")
    number = stored.head.number
    report = mine.pull(folder)
    assert [one.kept for one in report.conflicts] == [f"file.conflict-{number}"]
    assert (folder / "file").read_text() == "mine"
    assert (folder / f"file.conflict-{number}").read_text() == "theirs"
    assert not mine.pull(folder).changed
    mine.push(folder)
    assert stored.contents("file") == b"mine"
    assert stored.contents(f"file.conflict-{number}") == b"theirs"


def test_a_push_never_overwrites_what_changed_there(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "file").write_text("base")
    (folder / "other").write_text("base")
    mine.push(folder)
    stored.write("other", b"theirs alone")
    stored.write("file", b"theirs")
    number = stored.head.number
    (folder / "file").write_text("mine")
    report = mine.push(folder)
    assert [one.kept for one in report.conflicts] == [f"file.conflict-{number}"]
    assert stored.contents("file") == b"mine"
    assert stored.contents(f"file.conflict-{number}") == b"theirs"
    assert stored.contents("other") == b"theirs alone"
    assert (folder / "other").read_text() == "base"
    assert not mine.push(folder).changed
    report = mine.sync(folder)
    assert (folder / "other").read_text() == "theirs alone"
    assert not report.conflicts


def test_a_first_push_keeps_what_was_there(mine: Workspace, stored: Stored, folder: Path) -> None:
    stored.write("file", b"theirs")
    stored.write("more", b"theirs")
    (folder / "file").write_text("mine")
    report = mine.push(folder)
    assert len(report.conflicts) == 1
    assert stored.contents("file") == b"mine"
    assert stored.contents(report.conflicts[0].kept) == b"theirs"
    assert stored.contents("more") == b"theirs"


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_deletion_is_carried_over_when_asked(mine: Workspace, stored: Stored, folder: Path, where: str) -> None:
    (folder / "dir").mkdir()
    (folder / "dir" / "file").write_text("1")
    (folder / "stays").write_text("1")
    mine.sync(folder)
    if where == "here":
        (folder / "dir" / "file").unlink()
        (folder / "dir").rmdir()
    else:
        stored.remove("dir")
    report = mine.sync(folder)
    assert not report.changed
    assert report.not_deleted == ("dir", "dir/file")
    report = mine.sync(folder, delete=True)
    assert {path.change for path in report.sent + report.received} == {"deleted"}
    assert sorted(stored.head.tree) == [b"stays"]
    assert sorted(path.name for path in folder.iterdir()) == ["stays"]


def test_a_deletion_loses_against_a_change(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "one").write_text("1")
    (folder / "two").write_text("1")
    mine.sync(folder)
    (folder / "one").unlink()
    stored.write("one", b"changed")
    stored.remove("two")
    (folder / "two").write_text("changed")
    report = mine.sync(folder, delete=True)
    assert sorted(one.path for one in report.conflicts) == ["one", "two"]
    assert (folder / "one").read_text() == "changed"
    assert stored.contents("two") == b"changed"


def test_one_way_with_delete_is_a_mirror(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "file").write_text("1")
    stored.write("extra/file", b"1")
    mine.push(folder)
    assert b"extra/file" in stored.head.tree
    mine.push(folder, delete=True)
    assert sorted(stored.head.tree) == [b"file"]
    (folder / "local").write_text("1")
    (folder / "file").unlink()
    mine.pull(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["file", "local"]
    mine.pull(folder, delete=True)
    assert sorted(path.name for path in folder.iterdir()) == ["file"]


def test_what_is_ignored_stays_out(mine: Workspace, stored: Stored, folder: Path, tmp_path: Path) -> None:
    files = {
        ".gitignore": "*.o\nbuild/\n!keep.o\n/top\n", "x.o": "", "keep.o": "", "build/out": "", "top": "",
        "sub/top": "", "sub/.gitignore": "!x.o\nlocal\n", "sub/x.o": "", "sub/local": "", "sub/y.o": "",
        ".atollignore": ".git\n", ".git/config": "", ".home/.cache": "", "given.log": "", "sub/a/given.log": "",
    }  # fmt: skip
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)
    mine.push(folder, exclude=["*.log"])
    there = {path.decode() for path, entry in stored.head.tree.items() if entry.kind.value == "f"}
    assert there == {".gitignore", ".atollignore", "keep.o", "sub/.gitignore", "sub/x.o", "sub/top"}
    stored.write("build/theirs", b"")
    stored.write(".home/theirs", b"")
    assert not mine.sync(folder, exclude=["*.log"], delete=True).changed
    assert not (folder / "build" / "theirs").exists()
    mine.sync(folder, home=True, ignore_files=False)
    assert (folder / "build" / "theirs").exists()
    assert {b".home/.cache", b"given.log", b".git/config", b"x.o"} <= set(stored.head.tree)


def test_ignore_files_of_the_workspace_count_from_the_first_pull_on(
    mine: Workspace, stored: Stored, folder: Path
) -> None:
    stored.write(".gitignore", b"build/\n")
    stored.write("sub/.atollignore", b"*.o\n")
    for path in ("build/out", "sub/x.o", "sub/x.c", "x.o"):
        stored.write(path, b"")
    for _ in range(2):
        mine.pull(folder)
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert there == {".gitignore", "sub/.atollignore", "sub/x.c", "x.o"}
    mine.sync(folder, delete=True)
    assert b"build/out" in stored.head.tree
    (folder / ".gitignore").unlink()
    mine.sync(folder, delete=True)
    assert b".gitignore" not in stored.head.tree


def test_a_cut_upload_goes_on_where_it_was(mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces) -> None:
    for number in range(12):
        (folder / str(number)).write_bytes(os.urandom(600_000))
    fake.cut_after = 5
    mine.push(folder)
    assert fake.stored == 7  # the other 5 came before the cut
    assert fake.seen.count("POST /sync/chunks") == 2
    assert stored.contents("11") == (folder / "11").read_bytes()


def test_a_cut_download_goes_on_where_it_was(
    mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces
) -> None:
    for number in range(12):
        stored.write(str(number), os.urandom(600_000))
    fake.cut_after = 5
    mine.pull(folder)
    assert fake.fetched <= 12 + 2
    for number in range(12):
        assert (folder / str(number)).read_bytes() == stored.contents(str(number))


def test_any_answer_may_be_lost_once(mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces) -> None:
    """Each kind of request fails the first time; the commit's answer is lost after it was carried out."""
    fill(folder)
    stored.write("theirs", os.urandom(2_000_000))
    mine.sync(folder)
    (folder / "mine").write_bytes(os.urandom(2_000_000))
    stored.write("theirs", os.urandom(2_000_000))
    failed: set[str] = {"GET /sync/head"}

    def fail(what: str) -> None:
        if what not in failed:
            failed.add(what)
            raise Refused(503, "UNAVAILABLE", "not now")

    fake.before = fail
    fake.lose_commit = True
    mine.sync(folder)
    assert {
        "GET /sync/entries",
        "POST /sync/missing",
        "POST /sync/chunks",
        "POST /sync/commit",
        "POST /sync/fetch",
    } <= failed
    assert not fake.lose_commit
    for name in ("mine", "theirs"):
        assert (folder / name).read_bytes() == stored.contents(name)
    assert not [path for path in stored.head.tree if b"conflict" in path]


def test_a_server_that_is_not_there_is_told_at_once(folder: Path, mine: Workspace, server: StandIn) -> None:
    server.stop()
    begun = time.monotonic()
    with pytest.raises(ConnectionFailed):
        mine.sync(folder)
    assert time.monotonic() - begun < 5
    server.start()


def test_contents_that_are_here_are_not_fetched(
    mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces
) -> None:
    (folder / "file").write_bytes(os.urandom(3_000_000))
    mine.push(folder)
    entry = stored.head.tree[b"file"]
    stored.put(entry._replace(path=b"moved/there"), entry._replace(path=b"copy", mode=0o600))
    stored.remove("file")
    mine.sync(folder, delete=True)
    assert fake.fetched == 0
    assert (folder / "copy").read_bytes() == (folder / "moved" / "there").read_bytes() == stored.contents("copy")
    assert not (folder / "file").exists()


def test_equal_files_travel_once(
    mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces, tmp_path: Path
) -> None:
    data = os.urandom(1_500_000)
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(data + (b"" if name != "c" else data))
    mine.push(folder)
    mine.pull(tmp_path / "other")
    assert fake.fetched <= 5
    assert picture(tmp_path / "other") == picture(folder)


def test_whoever_was_faster_is_merged_with(mine: Workspace, stored: Stored, folder: Path, fake: FakeWorkspaces) -> None:
    (folder / "file").write_text("1")

    def faster(what: str) -> None:
        if what == "POST /sync/commit" and len(stored.revisions) < 3:
            stored.write("theirs", b"2")

    fake.before = faster
    mine.push(folder)
    assert set(stored.head.tree) == {b"file", b"theirs"}


def test_folders_and_files_change_places(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "was-dir").mkdir()
    (folder / "was-dir" / "x").write_text("x")
    (folder / "was-file").write_text("f")
    mine.push(folder)
    stored.remove("was-dir")
    stored.remove("was-file")
    stored.write("was-dir", b"now a file")
    stored.write("was-file/x", b"now a folder")
    mine.sync(folder, delete=True)
    assert (folder / "was-dir").read_text() == "now a file"
    assert (folder / "was-file" / "x").read_text() == "now a folder"
    assert not mine.sync(folder, delete=True).changed


def test_hardlinks_follow_their_file(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "a").write_text("1")
    os.link(folder / "a", folder / "b")
    mine.push(folder)
    stored.write("a", b"22")
    mine.sync(folder)
    assert (folder / "b").read_text() == "22"
    assert os.stat(folder / "a").st_ino == os.stat(folder / "b").st_ino
    assert not mine.sync(folder).changed


def test_a_dry_run_changes_nothing(mine: Workspace, stored: Stored, folder: Path) -> None:
    (folder / "mine").write_text("1")
    stored.write("theirs", b"1")
    report = mine.sync(folder, dry_run=True)
    assert [path.path for path in report.sent] == ["mine"]
    assert [path.path for path in report.received] == ["theirs"]
    assert sorted(path.name for path in folder.iterdir()) == ["mine"]
    assert list(stored.head.tree) == [b"theirs"]
