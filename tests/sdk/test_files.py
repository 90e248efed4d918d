from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import pytest

from atoll import Sandbox
from atoll.sdk import Conflict, ConnectionFailed, InvalidInput, NotFound
from tests.sdk.cutting_proxy import CuttingProxy
from tests.sdk.stand_in import StandIn


def test_text_and_bytes_come_back_as_written(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        assert sandbox.files.write("/a/ü b?&#%.txt", "grüß") == 6
        assert sandbox.files.read("/a/ü b?&#%.txt") == "grüß"
        assert sandbox.files.write("/raw", b"\x00\xff") == 2
        assert sandbox.files.read_bytes("/raw") == b"\x00\xff"
        assert sandbox.files.write("/from-file", io.BytesIO(b"x" * 3_000_000)) == 3_000_000
        assert sandbox.files.read_bytes("/from-file") == b"x" * 3_000_000
        assert sandbox.files.write("/empty", b"") == 0
        assert sandbox.files.read_bytes("/empty") == b""


def test_directories_are_made_listed_moved_and_removed(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        files = sandbox.files
        files.mkdir("/d/e")
        files.write("/d/f", "12345", mode=0o750)
        assert [(entry.name, entry.kind, entry.size) for entry in files.list("/d")][1] == ("f", "file", 5)
        entry = files.stat("/d/f")
        assert (entry.kind, entry.size, entry.mode) == ("file", 5, 0o750)
        assert entry.modified_at > 1_700_000_000
        files.move("/d/f", "/d/g")
        assert not files.exists("/d/f")
        assert files.exists("/d/g")
        with pytest.raises(Conflict):
            files.remove("/d")
        files.remove("/d", recursive=True)
        assert not files.exists("/d")


def test_what_is_not_there_or_no_file_is_an_error(server: StandIn) -> None:
    with Sandbox.create() as sandbox:
        with pytest.raises(NotFound):
            sandbox.files.read("/none")
        with pytest.raises(NotFound):
            sandbox.files.list("/none")
        sandbox.files.mkdir("/d")
        with pytest.raises(InvalidInput):
            sandbox.files.read("/d")
        assert sandbox.run("true").ok  # the connection of a failed download is still good


def test_upload_and_download_keep_content_and_permissions(server: StandIn, tmp_path: Path) -> None:
    source = tmp_path / "script.sh"
    source.write_bytes(os.urandom(5_000_000))
    source.chmod(0o755)
    moved: list[int] = []
    with Sandbox.create() as sandbox:
        assert sandbox.files.upload(source, "/x/script.sh", progress=moved.append) == 5_000_000
        assert sum(moved) == 5_000_000
        assert sandbox.files.stat("/x/script.sh").mode == 0o755
        moved.clear()
        assert sandbox.files.download("/x/script.sh", tmp_path / "back", progress=moved.append) == 5_000_000
        assert sum(moved) == 5_000_000
        assert (tmp_path / "back").read_bytes() == source.read_bytes()
        (tmp_path / "folder").mkdir()
        sandbox.files.download("/x/script.sh", tmp_path / "folder")
        assert (tmp_path / "folder" / "script.sh").stat().st_size == 5_000_000


def test_a_failed_download_leaves_no_file(server: StandIn, tmp_path: Path) -> None:
    with Sandbox.create() as sandbox, pytest.raises(NotFound):
        sandbox.files.download("/none", tmp_path / "file")
    assert not list(tmp_path.glob("*file*"))


def test_a_download_cut_short_is_an_error_and_leaves_the_old_file(
    server: StandIn, proxy: CuttingProxy, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with Sandbox.create() as sandbox:
        sandbox.run("truncate -s 200000000 big")
        with pytest.raises(ConnectionFailed):
            sandbox.files.download("/big", target, progress=lambda _: proxy.cut_all())
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.glob(".target*")) == []


def test_a_large_file_is_never_held_in_memory(server: StandIn, tmp_path: Path) -> None:
    source = tmp_path / "large"
    with open(source, "wb") as file:
        file.truncate(64 * 2**20)
    with Sandbox.create() as sandbox:
        tracemalloc.start()
        try:
            sandbox.files.upload(source, "/large")
            sandbox.files.download("/large", tmp_path / "back")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (tmp_path / "back").stat().st_size == 64 * 2**20
    assert peak < 24 * 2**20
