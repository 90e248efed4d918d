from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from atoll.cli.failure import Failed
from atoll.cli.trees import _Unpacking, send_tree
from atoll.sdk import Chunk, ConnectionFailed
from tests.cli.conftest import Atoll
from tests.sdk.stand_in import StandIn


@pytest.fixture
def box(atoll: Atoll, server: StandIn) -> Path:
    """The folder that stands for a sandbox called box. Its programs see the host: name folders by relative paths."""
    made = atoll("run", "-d", "--name", "box", "--", "sleep", "100").stdout.strip()
    return server.routes.boxes[made].root


def test_a_file_goes_in_and_comes_out(atoll: Atoll, box: Path, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(1_000_000))
    source.chmod(0o750)
    (box / "dir").mkdir()
    assert atoll("cp", str(source), "box:/copy").returncode == 0
    assert atoll("cp", str(source), "box:/dir").returncode == 0
    assert atoll("cp", str(source), "box:/new/").returncode == 0
    for name in ("copy", "dir/file", "new/file"):
        assert (box / name).read_bytes() == source.read_bytes()
        assert (box / name).stat().st_mode & 0o777 == 0o750
    (tmp_path / "here").mkdir()
    assert atoll("cp", "box:/copy", str(tmp_path / "here")).returncode == 0
    assert atoll("cp", "box:/copy", str(tmp_path / "other")).returncode == 0
    for name in ("here/copy", "other"):
        assert (tmp_path / name).read_bytes() == source.read_bytes()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o750


def test_a_pipe_goes_in_and_comes_out(atoll: Atoll, box: Path) -> None:
    assert atoll("cp", "-", "box:/piped", stdin="from a pipe").returncode == 0
    assert (box / "piped").read_text() == "from a pipe"
    assert atoll("cp", "box:/piped", "-").stdout == "from a pipe"


def test_json_says_how_much_moved(atoll: Atoll, box: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    said = json.loads(atoll("cp", "--json", str(tmp_path / "file"), "box:/file").stdout)
    assert said == {"source": str(tmp_path / "file"), "destination": "box:/file", "bytes": 5}


def test_a_tar_that_ends_before_the_folder_does_says_why(
    atoll: Atoll, box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tar").write_text("#!/bin/sh\necho no room >&2\nexit 5\n")
    (tmp_path / "bin" / "tar").chmod(0o755)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(bytes(20_000_000))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    done = atoll("cp", str(tmp_path / "tree"), "box:/")
    assert (done.returncode, done.stderr) == (1, "atoll: tar in the sandbox exited with 5: no room\n")


class EndedTar:
    """A process that took the whole archive and ended; its connection is closed, its end not yet read."""

    exit_code: int | None = None

    async def __aenter__(self) -> EndedTar:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        self.exit_code = 0
        return
        yield

    async def write(self, data: bytes) -> None:
        pass

    async def close_stdin(self) -> None:
        raise ConnectionFailed("the connection to the process was lost")


async def test_a_tar_that_ends_before_its_input_is_closed_has_done_its_work(tmp_path: Path) -> None:
    class Box:
        class files:
            @staticmethod
            async def mkdir(path: str) -> None:
                pass

        @staticmethod
        async def exec(argv: list[str]) -> EndedTar:
            return EndedTar()

    await send_tree(cast(Any, Box), tmp_path, "/tree", lambda what, size: lambda moved: None)


def test_a_folder_goes_in_with_its_links_and_modes(atoll: Atoll, box: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "empty").mkdir(parents=True)
    (tree / "a" / "run").write_text("#!/bin/sh\n")
    (tree / "a" / "run").chmod(0o755)
    (tree / "link").symlink_to("a/run")
    (box / "there").mkdir()
    assert atoll("cp", str(tree), "box:there").returncode == 0
    assert atoll("cp", str(tree), "box:named").returncode == 0
    assert atoll("cp", f"{tree}/.", "box:there").returncode == 0
    for place in (box / "there" / "tree", box / "named", box / "there"):
        assert (place / "a" / "run").stat().st_mode & 0o777 == 0o755
        assert (place / "a" / "empty").is_dir()
        assert os.readlink(place / "link") == "a/run"


def test_a_folder_comes_out_and_joins_what_is_there(atoll: Atoll, box: Path, tmp_path: Path) -> None:
    (box / "tree" / "deep").mkdir(parents=True)
    (box / "tree" / "deep" / "file").write_text("new")
    (box / "tree" / "deep" / "file").chmod(0o755)
    (box / "tree" / "inside").symlink_to("deep/file")
    (box / "tree" / "outside").symlink_to("/etc/passwd")
    done = atoll("cp", "box:tree", str(tmp_path / "fresh"))
    assert done.stderr == "atoll: 1 links and special files were left out\n"
    (tmp_path / "old" / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "old" / "tree" / "mine").write_text("kept")
    (tmp_path / "old" / "tree" / "deep" / "file").write_text("old")
    assert atoll("cp", "box:tree", str(tmp_path / "old")).returncode == 0
    for place in (tmp_path / "fresh", tmp_path / "old" / "tree"):
        assert (place / "deep" / "file").read_text() == "new"
        assert (place / "deep" / "file").stat().st_mode & 0o777 == 0o755
        assert os.readlink(place / "inside") == "deep/file"
        assert not os.path.lexists(place / "outside")
    assert (tmp_path / "old" / "tree" / "mine").read_text() == "kept"
    assert not list(tmp_path.glob(".*"))


def test_what_does_not_exist_is_an_error_in_one_line(atoll: Atoll, box: Path, tmp_path: Path) -> None:
    for words in (
        (str(tmp_path / "none"), "box:/x"),
        ("box:/none", str(tmp_path / "x")),
        ("box:/none", str(tmp_path / "none" / "x")),
        ("box:/a", "box:/b"),
        ("a", "b"),
    ):
        done = atoll("cp", *words)
        assert done.returncode != 0
        assert done.stderr.startswith("atoll: ")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


class _Archive:
    """An archive that a sandbox made."""

    def __init__(self, *members: tuple[str, bytes, str, str]) -> None:
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for name, kind, target, text in members:
                member = tarfile.TarInfo(name)
                member.type = kind
                member.linkname = target
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        whole.seek(0)
        self.read = whole.read


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", ".."])
def test_an_archive_cannot_name_a_place_outside(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(Failed, match="outside"):
        _Unpacking(root).run(_Archive((name, tarfile.REGTYPE, "", "x")))  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_an_archive_cannot_write_through_its_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    unpacking = _Unpacking(root)
    unpacking.run(
        _Archive(
            ("up", tarfile.SYMTYPE, "../outside", ""),
            ("up/file", tarfile.REGTYPE, "", "through"),
            ("abs", tarfile.SYMTYPE, str(outside), ""),
            ("hard", tarfile.LNKTYPE, "../outside/secret", ""),
            ("harder", tarfile.LNKTYPE, "up/../../outside/secret", ""),
            ("device", tarfile.CHRTYPE, "", ""),
        )  # type: ignore[arg-type]
    )
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (root / "up" / "file").read_text() == "through"
    assert not (root / "up").is_symlink()
    assert sorted(path.name for path in root.iterdir()) == ["up"]
    assert unpacking.skipped == 5


def test_an_archive_cannot_write_one_file_twice(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        _Unpacking(tmp_path).run(
            _Archive(("a", tarfile.REGTYPE, "", "1"), ("a", tarfile.REGTYPE, "", "2"))  # type: ignore[arg-type]
        )
