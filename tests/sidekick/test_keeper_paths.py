"""How a keeper reaches what a path names: below the tree, through no link and into no other mount."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.sidekick import keeper_paths
from atoll.sidekick.keeper_paths import FOLDERS_OPEN_MAX, TIME_MAX, Folders
from atoll.sidekick.keeper_wire import PATH_BYTES_MAX, STAT
from atoll.sidekick.protocol import Refused


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    for number in range(FOLDERS_OPEN_MAX + 1):
        (tmp_path / f"d{number}" / "e").mkdir(parents=True)
    (tmp_path / "d0" / "file").write_text("x")
    (tmp_path / "link").symlink_to("d0")
    root = os.open(tmp_path, os.O_RDONLY)
    yield tmp_path, root
    os.close(root)


def same(fd: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(fd), path.stat())


def refused_by(folder: int, path: bytes) -> int | None:
    with pytest.raises(OSError) as refused:
        os.close(keeper_paths.open_folder(folder, path))
    return refused.value.errno


def test_a_folder_of_the_tree_is_opened_to_be_read_and_not_inherited(tree: tuple[Path, int]) -> None:
    path, root = tree
    for name, where in ((b"d0/e", path / "d0/e"), (b"", path)):
        fd = keeper_paths.open_folder(root, name)
        assert same(fd, where) and not os.get_inheritable(fd)
        os.listdir(fd)
        os.close(fd)


def test_f02_nothing_leads_out_of_the_tree(tree: tuple[Path, int]) -> None:
    path, root = tree
    (path / "d1" / "up").symlink_to("..")
    (path / "d1" / "away").symlink_to("/etc")
    for name, number in (
        (b"link", errno.ENOTDIR),
        (b"link/e", errno.ELOOP),
        (b"d1/up/d0", errno.ELOOP),
        (b"d1/away", errno.ENOTDIR),
        (b"..", errno.EXDEV),
        (b"d0/../..", errno.EXDEV),
        (b"/etc", errno.EXDEV),
        (b"d0/file", errno.ENOTDIR),
        (b"none", errno.ENOENT),
    ):
        assert refused_by(root, name) == number, name
    machine = os.open("/", os.O_RDONLY)
    assert refused_by(machine, b"proc") == errno.EXDEV  # another mount
    os.close(machine)


def test_what_is_kept_takes_the_place_of_what_was_there(tree: tuple[Path, int]) -> None:
    _, root = tree
    first, second = (keeper_paths.open_folder(root, b"d0") for _ in range(2))
    with Folders(root) as folders:
        folders.keep(b"d0", first)
        folders.keep(b"d0", second)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(first)
        assert folders.of(b"d0/e") == (second, b"e")


def test_two_names_change_places_in_one_step(tree: tuple[Path, int]) -> None:
    path, root = tree
    (path / "a").write_text("a")
    (path / "b").write_text("b")
    keeper_paths.exchange(root, b"a", b"b")
    assert ((path / "a").read_text(), (path / "b").read_text()) == ("b", "a")
    with pytest.raises(FileNotFoundError):
        keeper_paths.exchange(root, b"a", b"none")


def test_a_sync_that_fails_says_so(tree: tuple[Path, int]) -> None:
    keeper_paths.sync(tree[1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        keeper_paths.sync(-1)


CLOSING = """
import os, sys
from atoll.sidekick import keeper_paths
keeper_paths._CLOSE_RANGE = int(sys.argv[1]) or keeper_paths._CLOSE_RANGE
fds = [200, 201, 202, 203]
for fd in fds:
    os.dup2(1, fd)
for first, last in ((203, 202), (201, 201), (201, 202)):
    keeper_paths.close_range(first, last)
    print(*(fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")))
"""


@pytest.mark.parametrize("number", ["0", "-1"], ids=["by_the_kernel", "by_hand"])
def test_a_range_of_descriptors_is_closed_and_no_other(number: str) -> None:
    words = [sys.executable, "-c", CLOSING, number]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == ["200 201 202 203", "200 202 203", "200 203"]


def test_the_parent_of_a_name_is_resolved_once(tree: tuple[Path, int]) -> None:
    path, root = tree
    with Folders(root) as folders:
        assert folders.of(b"") == (root, b".")
        assert folders.of(b"d0") == (root, b"d0")
        parent, name = folders.of(b"d0/e/x")
        assert name == b"x" and same(parent, path / "d0/e")
        assert folders.of(b"d0/e/y") == (parent, b"y")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(parent)


@pytest.mark.parametrize("how", ["of", "keep"])
def test_only_so_many_folders_are_open(tree: tuple[Path, int], how: str) -> None:
    _, root = tree
    before = len(os.listdir("/proc/self/fd"))
    with Folders(root) as folders:
        for number in range(FOLDERS_OPEN_MAX + 1):
            if how == "of":
                folders.of(b"d%d/x" % number)
            else:
                folders.keep(b"d%d" % number, keeper_paths.open_folder(root, b"d%d" % number))
            open_now = len(os.listdir("/proc/self/fd")) - before
            assert open_now == (number + 1 if number < FOLDERS_OPEN_MAX else 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_only_files_have_a_size_and_times_stay_within_what_a_tree_holds(tree: tuple[Path, int]) -> None:
    path, _ = tree
    info = os.lstat(path / "d0/file")
    assert STAT.unpack(keeper_paths.record(info))[:4] == (info.st_ino, 1, info.st_mtime_ns, info.st_ctime_ns)
    assert STAT.unpack(keeper_paths.record(os.lstat(path / "link")))[1] == 0
    late = os.stat_result((*info[:7], 0, 0, 0), {"st_mtime_ns": 2**63, "st_ctime_ns": -(2**64)})
    assert TIME_MAX == 2**63 - 1
    assert STAT.unpack(keeper_paths.record(late))[2:4] == (TIME_MAX, -TIME_MAX)


@pytest.mark.parametrize("path", [b"", b"a", b"a/b", b"..a", b"\xff", b"x" * PATH_BYTES_MAX])
def test_f01_a_path_below_the_root_may_be_used(path: bytes) -> None:
    assert keeper_paths.checked(path) == path


@pytest.mark.parametrize("path", [b"/a", b"a/", b"a//b", b".", b"a/../b", b"..", b"a\0b", b"x" * (PATH_BYTES_MAX + 1)])
def test_f01_any_other_is_refused(path: bytes) -> None:
    with pytest.raises(Refused) as refused:
        keeper_paths.checked(path)
    assert (refused.value.code, refused.value.field) == ("bad_request", "path")


def test_what_vanished_is_a_conflict_and_what_is_full_is_told() -> None:
    for number, code in ((errno.ENOENT, "conflict"), (errno.ELOOP, "conflict"), (errno.ENOSPC, "too_large")):
        assert keeper_paths.refused(OSError(number, "x"), b"p\xff").code == code
