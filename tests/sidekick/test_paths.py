"""How the sidekick opens what a caller names: by name, without magic links, and below a folder where it has to stay."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from atoll.sidekick import paths
from atoll.sidekick.protocol import Refused


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("a", "/a"),
        ("/a/./b/../c", "/a/c"),
        ("//a//b/", "/a/b"),
        ("../../etc", "/etc"),
        (".", "/"),
        ("/..", "/"),
        ("a\\..\\b", "/a\\..\\b"),
        ("%2e%2e", "/%2e%2e"),
        ("x" * paths.MAX_PATH_BYTES, "/" + "x" * paths.MAX_PATH_BYTES),
    ],
)
def test_f01_a_path_is_absolute_and_resolved_by_name(path: str, meant: str) -> None:
    assert paths.clean(path) == meant


@pytest.mark.parametrize("path", ["", "a\0b", 7, None, "x" * (paths.MAX_PATH_BYTES + 1), "\u00e9" * 2049, "\ud800"])
def test_f01_what_can_be_no_path_is_refused_by_the_name_of_its_field(path: object) -> None:
    with pytest.raises(Refused) as refused:
        paths.clean(path, "from")
    assert (refused.value.code, refused.value.field) == ("bad_request", "from")


def error_of(path: str, flags: int = os.O_RDONLY) -> int | None:
    with pytest.raises(OSError) as refused:
        paths.open_path(path, flags)
    assert refused.value.filename == path
    return refused.value.errno


def test_files_are_opened_through_links_and_no_descriptor_is_inherited(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        fd = paths.open_path(str(tmp_path / name), os.O_RDONLY)
        assert os.read(fd, 2) == b"x" and not os.get_inheritable(fd)
        os.close(fd)
    fd = paths.open_path(str(tmp_path / "new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    os.close(fd)
    assert error_of(str(tmp_path / "none")) == errno.ENOENT


def test_f02_magic_links_lead_nowhere(tmp_path: Path) -> None:
    secret = os.open(tmp_path, os.O_PATH)
    (tmp_path / "through").symlink_to(f"/proc/self/fd/{secret}")
    for path in (f"/proc/self/fd/{secret}", "/proc/self/root/etc", "/proc/self/cwd", str(tmp_path / "through")):
        assert error_of(path, os.O_PATH) == errno.ELOOP
    os.close(secret)


def test_f02_below_a_folder_no_link_is_followed_and_nothing_leads_out(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("x")
    (tmp_path / "outside").write_text("secret")
    for name, target in (("out", "../outside"), ("in", "sub"), ("away", str(tmp_path))):
        (folder / name).symlink_to(target)
    held = os.open(folder, os.O_PATH)
    fd = paths.open_below(held, "sub/file", os.O_RDONLY)
    assert os.read(fd, 2) == b"x" and not os.get_inheritable(fd)
    os.close(fd)
    for path, number in (
        ("out", errno.ELOOP),
        ("in/file", errno.ELOOP),
        ("away/outside", errno.ELOOP),
        ("../outside", errno.EXDEV),
        ("sub/../../outside", errno.EXDEV),
        (str(tmp_path / "outside"), errno.EXDEV),
        ("none", errno.ENOENT),
    ):
        with pytest.raises(OSError) as refused:
            paths.open_below(held, path, os.O_RDONLY)
        assert refused.value.errno == number, path
    os.close(held)


def test_only_a_directory_is_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    fd = paths.open_directory(str(tmp_path))
    assert stat.S_ISDIR(os.fstat(fd).st_mode)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.listdir(fd)  # to go on from, not to be read
    os.close(fd)
    for name, said in (("file", "no such directory"), ("none", "no such directory"), ("loop", "symbolic links")):
        with pytest.raises(Refused, match=said) as refused:
            paths.open_directory(str(tmp_path / name), "cwd")
        assert (refused.value.code, refused.value.field) == ("bad_request", "cwd")


def test_f06_files_of_the_kernel_are_told_from_files_on_disks(tmp_path: Path) -> None:
    assert paths.is_kernel_file(os.stat("/proc/self/status"))
    assert not paths.is_kernel_file(os.stat(tmp_path))
    assert not paths.is_kernel_file(os.stat("/"))


def test_a_kind_has_a_word(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    found = {one: paths.kind_of(os.lstat(tmp_path / one).st_mode) for one in (".", "file", "link", "pipe")}
    assert found == {".": "directory", "file": "file", "link": "symlink", "pipe": "other"}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.EACCES, "x"), "forbidden", "path '/p': permission denied"),
        (OSError(errno.EIO, "Disk on fire"), "internal", "path '/p': Disk on fire"),
        (OSError(), "internal", "path '/p': input/output error"),
    ],
)
def test_what_the_system_says_has_a_code(error: OSError, code: str, said: str) -> None:
    refused = paths.refusal(error, "/p")
    assert (refused.code, refused.message, refused.field) == (code, said, "path")
