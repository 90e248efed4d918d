"""Watching: what happens below a folder is told once, also what is made before its own folder is watched."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atoll.domain.errors import InvalidInput, NotFound, TooLarge, Unavailable
from atoll.domain.file_change import ChangeKind
from atoll.sidekick import changes, watching
from atoll.sidekick.client import WatchStream
from atoll.sidekick.globs import Globs
from tests.sidekick.running import RunningSidekick

Told = set[tuple[str, str]]
OVERFLOW = ChangeKind.OVERFLOW


class Follower:
    """Collects what a watch tells, by paths below its folder."""

    def __init__(self, stream: WatchStream, root: Path) -> None:
        self.told: list[tuple[str, str]] = []
        self._root = str(root)
        self._stream = stream
        self._news = asyncio.Event()

    async def run(self) -> None:
        async for piece in self._stream:
            self.told += [(one.kind, os.path.relpath(one.path, self._root)) for one in piece]
            self._news.set()

    async def until(self, *wanted: tuple[str, str], within_s: float = 10) -> list[tuple[str, str]]:
        """All that was told once these were; forgets it."""
        async with asyncio.timeout(within_s):
            while not set(wanted) <= set(self.told):
                self._news.clear()
                await self._news.wait()
        found, self.told = self.told, []
        return found


@asynccontextmanager
async def watching_of(sidekick: RunningSidekick, root: Path, *ignored: str) -> AsyncIterator[Follower]:
    stream = await sidekick.client.watch(str(root), ignored)
    follower = Follower(stream, root)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "a").write_text("a")
    return folder


async def test_files_and_folders_that_come_change_and_go_are_told(sidekick: RunningSidekick, root: Path) -> None:
    async with watching_of(sidekick, root) as follower:
        (root / "b").write_text("b")
        (root / "new").mkdir()
        assert set(await follower.until(("add", "b"), ("addDir", "new"))) == {("add", "b"), ("addDir", "new")}
        (root / "old" / "a").write_text("again")
        assert await follower.until(("change", "old/a")) == [("change", "old/a")]
        (root / "b").unlink()
        (root / "new").rmdir()
        told = await follower.until(("unlink", "b"), ("unlinkDir", "new"))
        assert set(told) == {("unlink", "b"), ("unlinkDir", "new")}


async def test_files_made_before_their_folder_is_watched_are_told_once(sidekick: RunningSidekick, root: Path) -> None:
    """Deep trees that appear at once: every file of them, exactly once."""
    async with watching_of(sidekick, root) as follower:
        wanted: Told = set()
        for number in range(20):
            deep = root / f"t{number}" / "a" / "b"
            deep.mkdir(parents=True)
            (deep / "file").write_text("x")
            wanted |= {("addDir", f"t{number}"), ("addDir", f"t{number}/a"), ("addDir", f"t{number}/a/b")}
            wanted.add(("add", f"t{number}/a/b/file"))
        told = await follower.until(*wanted)
        await asyncio.sleep(2 * changes.GATHER_S)
        told += follower.told
        assert sorted(one for one in told if one[0] != "change") == sorted(wanted)


async def test_a_tree_that_moves_is_gone_here_and_new_there(sidekick: RunningSidekick, root: Path) -> None:
    async with watching_of(sidekick, root) as follower:
        (root / "old").rename(root / "moved")
        told = await follower.until(("add", "moved/a"))
        assert set(told) == {("unlink", "old/a"), ("unlinkDir", "old"), ("addDir", "moved"), ("add", "moved/a")}
        (root / "moved" / "c").write_text("c")
        assert await follower.until(("add", "moved/c")) == [("add", "moved/c")]
        shutil.rmtree(root / "moved")
        told = await follower.until(("unlinkDir", "moved"))
        assert set(told) == {("unlink", "moved/a"), ("unlink", "moved/c"), ("unlinkDir", "moved")}


async def test_a_file_that_is_replaced_in_one_step_has_changed(sidekick: RunningSidekick, root: Path) -> None:
    async with watching_of(sidekick, root) as follower:

        async def content() -> AsyncIterator[bytes]:
            yield b"new"

        await sidekick.client.write_file(str(root / "old" / "a"), content())
        assert await follower.until(("change", "old/a")) == [("change", "old/a")]


async def test_what_is_ignored_is_neither_told_nor_looked_into(sidekick: RunningSidekick, root: Path) -> None:
    (root / "node_modules" / "deep").mkdir(parents=True)
    patterns = ("**/node_modules/**", "*.log", "old/a")
    async with watching_of(sidekick, root, *patterns) as follower:
        (root / "node_modules" / "deep" / "x").write_text("x")
        (root / "x.log").write_text("x")
        (root / "old" / "a").write_text("x")
        (root / "old" / "node_modules").mkdir()
        (root / "old" / "b").write_text("b")
        assert await follower.until(("add", "old/b")) == [("add", "old/b")]


async def test_symbolic_links_are_not_followed(sidekick: RunningSidekick, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    async with watching_of(sidekick, root) as follower:
        (root / "another").symlink_to(outside)
        (outside / "x").write_text("x")
        (root / "last").write_text("x")
        assert set(await follower.until(("add", "last"))) <= {("add", "another"), ("add", "last")}


async def test_one_file_is_watched_through_its_replacements(sidekick: RunningSidekick, root: Path) -> None:
    async with watching_of(sidekick, root / "old" / "a") as follower:
        (root / "old" / "b").write_text("not this one")
        (root / "old" / "b").replace(root / "old" / "a")
        assert await follower.until(("change", ".")) == [("change", ".")]
        (root / "old" / "a").unlink()
        assert await follower.until(("unlink", ".")) == [("unlink", ".")]


async def test_a_storm_is_told_in_few_words_and_the_end_is_right(sidekick: RunningSidekick, root: Path) -> None:
    async with watching_of(sidekick, root) as follower:
        with (root / "hot").open("w") as hot:
            for number in range(30_000):
                hot.write("x")
                hot.flush()
                if number % 10 == 0:
                    temporary = root / f"t{number}"
                    temporary.touch()
                    temporary.unlink()
        (root / "end").touch()
        told = await follower.until(("add", "end"))
        assert len(told) < 3000
        (root / "hot").unlink()
        assert ("unlink", "hot") in await follower.until(("unlink", "hot"))


async def test_what_the_kernel_drops_is_told_and_found_again(sidekick: RunningSidekick, root: Path) -> None:
    """The sidekick stands still while more happens than the kernel's queue holds."""
    async with watching_of(sidekick, root) as follower:
        sidekick.process.send_signal(signal.SIGSTOP)
        for number in range(6000):
            (root / f"f{number}").touch()
        (root / "deep").mkdir()
        (root / "deep" / "in").touch()
        for number in range(6000):
            (root / f"f{number}").unlink()
        sidekick.process.send_signal(signal.SIGCONT)
        told = await follower.until((OVERFLOW, "."), ("add", "deep/in"))
        assert ("addDir", "deep") in told
        (root / "deep" / "later").touch()
        assert ("add", "deep/later") in await follower.until(("add", "deep/later"))


async def test_a_folder_that_is_put_in_place_of_the_watched_one_is_followed(
    sidekick: RunningSidekick, root: Path
) -> None:
    async with watching_of(sidekick, root) as follower:
        root.rename(root.with_name("before"))
        root.mkdir()
        (root / "fresh").touch()
        told = await follower.until((OVERFLOW, "."), ("add", "fresh"))
        assert ("unlink", "old/a") in told and ("unlinkDir", "old") in told
        (root / "more").touch()
        await follower.until(("add", "more"))


async def test_bounds_are_refusals(sidekick: RunningSidekick, root: Path) -> None:
    client = sidekick.client
    with pytest.raises(NotFound):
        await client.watch(str(root / "none"))
    with pytest.raises(InvalidInput, match="ignored"):
        await client.watch(str(root), ["x" * 300])
    with pytest.raises(InvalidInput, match="ignored"):
        await client.watch(str(root), ["x"] * 65)
    streams = [await client.watch(str(root)) for _ in range(watching.WATCHES_MAX)]
    with pytest.raises(Unavailable):
        await client.watch(str(root))
    for stream in streams:
        await stream.close()
    for number in range(watching.FOLDERS_MAX):
        (root / f"d{number}").mkdir()
    with pytest.raises(TooLarge, match="ignore some"):
        await client.watch(str(root))
    stream = await client.watch(str(root), ["d*"])
    assert stream.kind == "directory"
    await stream.close()


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("node_modules", "a/node_modules", True),
        ("node_modules", "node_modules_2", False),
        ("*.py[co]", "a/b.pyc", True),
        ("*.py[!co]", "a/b.pyc", False),
        ("/w/a/*.txt", "a/b.txt", True),
        ("/w/*.txt", "a/b.txt", False),
        ("**/dist", "a/b/dist", True),
        ("dist/**", "dist", True),
        ("dist/**", "a/dist", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/*/z", "a/b/c/z", False),
        ("?.c", "x.c", True),
        ("[a", "[a", True),
        ("*" * 200 + "x", "y" * 200, False),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    assert Globs([pattern], "/w").match(path) is matches
