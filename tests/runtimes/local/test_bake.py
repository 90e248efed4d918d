"""Baking a layer: what is copied, and that it never takes more of the host than its sandbox's own disk had."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll.runtimes.local import syscalls
from atoll.runtimes.local.bake import Budget, copy_tree, open_writable_layer

MIB = 2**20

Copy = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Iterator[Copy]:
    """Copy the source with this budget; where to."""
    opened: list[int] = []

    def run(*, bytes_max: int = MIB, entries_max: int = 100) -> Path:
        target = tmp_path / "target"
        target.mkdir()
        opened.extend(os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (source, target))
        budget = Budget(opened[0])
        budget.bytes, budget.entries = bytes_max, entries_max
        copy_tree(opened[0], opened[1], budget)
        return target

    yield run
    for fd in opened:
        os.close(fd)


def test_files_folders_links_modes_and_times_are_copied(source: Path, copy: Copy) -> None:
    (source / "bin").mkdir(mode=0o750)
    (source / "bin" / "tool").write_bytes(b"text" * 1000)
    (source / "bin" / "tool").chmod(0o751)
    os.utime(source / "bin" / "tool", (1, 2))
    (source / "link").symlink_to("bin/tool")
    (source / "empty").touch()
    target = copy()
    assert (target / "link").read_bytes() == b"text" * 1000
    assert (target / "link").is_symlink()
    status = (target / "bin" / "tool").stat()
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o751, 2)
    assert (target / "bin").stat().st_mode & 0o7777 == 0o750
    assert (target / "empty").stat().st_size == 0


def test_holes_stay_holes(source: Path, copy: Copy) -> None:
    with open(source / "huge", "wb") as file:
        file.truncate(2**40)
        file.seek(2**39)
        file.write(b"here")
    status = (copy(bytes_max=MIB) / "huge").stat()
    assert status.st_size == 2**40
    assert status.st_blocks * 512 <= MIB


def test_second_names_cannot_write_more_than_the_disk_holds(source: Path, copy: Copy) -> None:
    (source / "0").write_bytes(bytes(100_000))
    for number in range(1, 30):
        os.link(source / "0", source / str(number))
    with pytest.raises(OSError) as caught:
        copy(bytes_max=MIB)
    assert caught.value.errno == errno.EFBIG
    written = sum(path.stat().st_blocks * 512 for path in (source.parent / "target").iterdir())
    assert written <= MIB


def test_more_entries_than_the_disk_has_are_refused(source: Path, copy: Copy) -> None:
    for number in range(11):
        (source / str(number)).touch()
    with pytest.raises(OSError) as caught:
        copy(entries_max=10)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="detaches a mount, which needs root")
def test_the_layer_is_found_while_other_descriptors_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "written").touch()
    layer = syscalls.clone_tree(str(tmp_path), syscalls.ATTR_NOSUID)
    there = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: ["99999", *there(folder)])  # closed since it was listed
    try:
        found = open_writable_layer(os.getpid())
    finally:
        os.close(layer)
    assert there(found) == ["written"]
    os.close(found)
    with pytest.raises(OSError, match="keeps no writable layer open"):
        open_writable_layer(os.getpid())
