"""Copying: files appear whole, nothing is replaced, and exactly what was made is taken away again."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.copied import CopiedEntry, CopyEnd
from atoll.domain.errors import InvalidInput, NotFound
from atoll.sidekick import copying
from tests.sidekick.running import RunningSidekick


async def copied(sidekick: RunningSidekick, source: Path, target: Path, **more: Any) -> tuple[list[CopiedEntry], Any]:
    made: list[CopiedEntry] = []
    async for told in sidekick.client.copy(str(source), str(target), **more):
        if isinstance(told, CopyEnd):
            return made, told
        made += told
    raise AssertionError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "template"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "deep" / "a").write_text("a")
    (folder / "src" / "run").write_text("#!/bin/sh\n")
    (folder / "src" / "run").chmod(0o4755)
    (folder / "link").symlink_to("src/run")
    (folder / "large").write_bytes(os.urandom(3 * copying.STEP_BYTES + 7))
    (folder / "node_modules" / "x").mkdir(parents=True)
    (folder / "node_modules" / "x" / "index.js").write_text("x")
    (folder / ".git").mkdir()
    os.mkfifo(folder / "fifo")
    return folder


async def test_a_folder_is_copied_with_modes_times_and_links(
    sidekick: RunningSidekick, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "a" / "b"
    os.utime(source / "large", ns=(1, 1_234_567_891))
    made, end = await copied(sidekick, source, target, ignored=["deep"])
    assert (target / "large").read_bytes() == (source / "large").read_bytes()
    assert (target / "large").stat().st_mtime_ns == 1_234_567_891
    assert stat.S_IMODE((target / "src" / "run").stat().st_mode) == 0o755
    assert os.readlink(target / "link") == "src/run"
    assert set(end.skipped) == {".git", "fifo", "src/deep"} and not (target / "src" / "deep").exists()
    assert (end.files, end.folders) == (4, 3) and len(made) == 7
    assert not [name for name in os.listdir(target) if name.startswith(".atoll")]


async def test_folders_of_some_names_become_links(sidekick: RunningSidekick, source: Path, tmp_path: Path) -> None:
    await copied(sidekick, source, tmp_path / "t", links=["node_modules"])
    assert os.readlink(tmp_path / "t" / "node_modules") == str(source / "node_modules")


async def test_what_is_there_stays_and_what_was_made_is_taken_away_again(
    sidekick: RunningSidekick, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "t"
    (target / "src").mkdir(parents=True)
    (target / "src" / "run").write_text("mine")
    (target / "link").mkdir()
    made, end = await copied(sidekick, source, target)
    assert (target / "src" / "run").read_text() == "mine" and {"src/run", "link"} <= set(end.skipped)
    (target / "large").write_text("changed since")
    (target / "node_modules" / "own").write_text("new since")
    await sidekick.client.uncopy(str(target), list(reversed(made)))
    left = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert left == ["large", "link", "node_modules", "node_modules/own", "src", "src/run"]


async def test_a_copy_that_broke_off_is_made_whole(sidekick: RunningSidekick, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t"
    first, _ = await copied(sidekick, source, target)
    (target / "src" / "deep" / "a").unlink()
    again, _ = await copied(sidekick, source, target, again=True)
    assert sorted(one.path for one in again) == sorted(one.path for one in first)


async def test_to_look_tells_what_a_copy_has_made_and_makes_nothing(
    sidekick: RunningSidekick, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "t"
    with pytest.raises(NotFound):
        await copied(sidekick, source, target, look=True)
    assert not target.exists()
    made, _ = await copied(sidekick, source, target)
    (target / "large").write_text("changed since")
    (target / "src" / "run").unlink()
    (target / "link").unlink()
    (target / "node_modules" / "x" / "index.js").unlink()
    (target / "node_modules" / "x").rmdir()
    before = sorted(target.rglob("*"))
    found, _ = await copied(sidekick, source, target, look=True)
    left = ("node_modules", "src", "src/deep", "src/deep/a")
    assert [(one.kind, one.path) for one in found] == [(one.kind, one.path) for one in made if one.path in left]
    assert sorted(target.rglob("*")) == before


def test_what_a_copy_made_that_found_too_much_is_told_all_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ENTRIES_MAX", 4)
    target = tmp_path / "t"

    def told(**more: Any) -> tuple[list[str], str]:
        connection = Connection()
        copying.copy(Sidekick(), connection, {"source": str(source), "target": str(target), **more})  # type: ignore[arg-type]
        connection.end()
        return connection.made, connection.how

    made, how = told()
    assert (len(made), how) == (4, "too_large")
    assert told(look=True) == (made, "finished")


class Connection:
    """One that takes everything, and how the copy on it ended."""

    room, closed = True, False

    def __init__(self) -> None:
        self.made: list[str] = []
        self.how = ""
        self.end: Callable[[], None] = lambda: None

    def when_closed(self, end: Callable[[], None]) -> None:
        self.end = end

    def send_json(self, _kind: int, told: Any) -> None:
        self.made += [path for _, path, _, _ in told["made"]]

    def finish(self, _told: Any) -> None:
        self.how = "finished"

    def refuse(self, refused: Any) -> None:
        self.how = refused.code


class Sidekick:
    copies = 0

    def __init__(self) -> None:
        self.loop = self

    def after(self, _seconds: float, call: Callable[[], None]) -> None:
        call()


async def test_f02_links_in_the_target_lead_nowhere(sidekick: RunningSidekick, source: Path, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "t"
    outside.mkdir()
    target.mkdir()
    (target / "src").symlink_to(outside)
    (outside / "kept").write_text("x")
    _, end = await copied(sidekick, source, target)
    assert os.listdir(outside) == ["kept"] and "src" in end.skipped
    size, at = 1, (outside / "kept").stat().st_mtime_ns
    made = [CopiedEntry("f", path, size, at) for path in ("src/kept", "../outside/kept", "/etc/hostname")]
    await sidekick.client.uncopy(str(target), made)
    assert os.listdir(outside) == ["kept"]


async def test_what_cannot_be_copied_is_refused(sidekick: RunningSidekick, source: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await copied(sidekick, tmp_path / "none", tmp_path / "t")
    for inside in (source, source / "src"):
        with pytest.raises(InvalidInput, match="lies in the source"):
            await copied(sidekick, source, inside)
    with pytest.raises(InvalidInput, match="links"):
        await copied(sidekick, source, tmp_path / "t", links=["x"] * 65)
