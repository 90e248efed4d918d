"""A keeper's scan, read and apply: what is carried from one tree to another is the same down to the nanosecond."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.domain.errors import Conflict, InvalidInput
from atoll.domain.tree import Entry, EntryKind
from atoll.sidekick.keeper_client import Data, KeeperClient, Remove, Skip, Write
from atoll.testing.local_keeper import LocalKeeper
from tests.sidekick.trees import entries, file, folder, holes_of, read_all, scanned, steps, these, truth

ROOT = os.geteuid() == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.fixture
def client(tree: Path) -> Iterator[KeeperClient]:
    with LocalKeeper(tree) as keeper:
        yield keeper.client


@pytest.fixture
def other(tmp_path: Path) -> Iterator[LocalKeeper]:
    (tmp_path / "other").mkdir()
    with LocalKeeper(tmp_path / "other") as keeper:
        yield keeper


def _make_everything(tree: Path) -> None:
    """One of each that a tree keeps."""
    (tree / "plain").write_bytes(b"hello")
    (tree / "empty file").write_bytes(b"")
    (tree / "large").write_bytes(os.urandom(3 * 2**20 + 17))
    (tree / "a").mkdir()
    (tree / "a" / "deep").mkdir()
    (tree / "a" / "deep" / "program").write_bytes(b"#!/bin/sh\n")
    (tree / "empty folder").mkdir()
    os.symlink("a/deep", tree / "to a folder")
    os.symlink("/nowhere/" + "x" * 300, tree / "dangling")
    os.link(tree / "plain", tree / "a" / "second name")
    os.link(tree / "plain", tree / "zz third name")
    os.mkfifo(tree / "fifo", 0o640)
    raw = os.fsencode(tree) + b"/\xff\xfe raw\n\x01"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY, 0o600))
    with (tree / "sparse").open("wb") as sparse:
        sparse.seek(2**20)
        sparse.write(b"in the middle" * 1000)
        sparse.truncate(5 * 2**20)
    with (tree / "nothing but a hole").open("wb") as sparse:
        sparse.truncate(10**12)
    os.setxattr(tree / "plain", "user.note", b"\x00\xff binary")
    os.setxattr(tree / "a", "user.of a folder", b"yes")
    if ROOT:
        os.chown(tree / "a" / "deep" / "program", 1000, 1234)
        os.chown(tree / "dangling", 4321, 1000, follow_symlinks=False)
        os.chown(tree / "empty folder", 65_534, 0)
    os.chmod(tree / "a" / "deep" / "program", 0o6755)
    os.chmod(tree / "empty folder", 0o3770)
    os.chmod(tree / "large", 0)
    os.utime(raw, ns=(1, -1_000_000_001))
    os.utime(tree / "dangling", ns=(5, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.utime(tree / "fifo", ns=(5, 1_111_111_111_111_111_111))
    os.utime(tree / "a" / "deep", ns=(7, 77_777_777_777))
    os.utime(tree, ns=(8, 8_888_888_888))


async def test_a_tree_is_carried_over_exactly(tree: Path, client: KeeperClient, other: LocalKeeper) -> None:
    _make_everything(tree)
    made, contents = await entries(client)
    there = await other.client.apply(steps(made, contents), sync=False)
    assert truth(Path(other.folder)) == truth(tree)
    assert [seen.path for seen in there] == [entry.path for entry in made]
    assert {seen.path: seen for seen in there} == await scanned(other.client)
    assert (await entries(other.client)) == (made, contents)


async def test_applying_again_over_what_is_there_changes_nothing(
    tree: Path, client: KeeperClient, other: LocalKeeper
) -> None:
    _make_everything(tree)
    made, contents = await entries(client)
    await other.client.apply(steps(made, contents), sync=False)
    there = await other.client.apply(steps(made, contents))
    assert truth(Path(other.folder)) == truth(tree)
    assert {seen.path: seen for seen in there} == await scanned(other.client)


async def test_whatever_stands_at_a_path_gives_way(tree: Path, client: KeeperClient) -> None:
    (tree / "folder" / "with" / "more").mkdir(parents=True)
    (tree / "folder" / "with" / "file").write_bytes(b"x")
    (tree / "file").write_bytes(b"old")
    (tree / "outside").mkdir()
    os.symlink("outside", tree / "link")
    os.symlink("outside", tree / "other link")
    me = os.getuid(), os.getgid()
    await client.apply(
        these(
            *file(b"folder", b"a file now"),
            folder(b"file"),
            *file(b"file/in it", b"1"),
            folder(b"link"),
            *file(b"link/in it", b"2"),
            *file(b"other link", b"3"),
            Write(Entry(b"outside", EntryKind.SYMLINK, 0, 5, *me, target=b"anywhere")),
        ),
        sync=False,
    )
    assert (tree / "folder").read_bytes() == b"a file now"
    assert (tree / "file" / "in it").read_bytes() == b"1"
    assert not (tree / "link").is_symlink()
    assert (tree / "link" / "in it").read_bytes() == b"2"
    assert not (tree / "other link").is_symlink()
    assert os.readlink(tree / "outside") == "anywhere"
    assert sorted(os.listdir(tree)) == ["file", "folder", "link", "other link", "outside"]


async def test_a_replaced_file_is_whole_for_those_who_have_it_open(tree: Path, client: KeeperClient) -> None:
    (tree / "f").write_bytes(b"old")
    with (tree / "f").open("rb") as held:
        await client.apply(these(*file(b"f", b"new and longer")), sync=False)
        assert held.read() == b"old"
    assert (tree / "f").read_bytes() == b"new and longer"


async def test_removing_a_tree_of_any_depth(tree: Path, client: KeeperClient) -> None:
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):  # deeper than any path can name
        os.mkdir("d", dir_fd=here)
        os.close(os.open("f", os.O_CREAT, dir_fd=here))
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    seen = await scanned(client)
    assert max(path.count(b"/") for path in seen) == 256
    assert {one.kind for path, one in seen.items() if path.count(b"/") == 256} == {"?"}
    await client.apply(these(Remove(b"d"), Remove(b"f"), Remove(b"never there"), Remove(b"no/such/parent")))
    assert os.listdir(tree) == []
    assert await client.usage() == (os.stat(tree).st_blocks * 512, 1)


async def test_what_is_told_of_paths_that_are_not_there(tree: Path, client: KeeperClient) -> None:
    (tree / "f").write_bytes(b"1")
    read = await read_all(client, [b"none", b"f", b"f/below a file", b"no/parent", b""])
    assert [path for path, (found, _) in read.items() if found.gone] == [b"none", b"f/below a file", b"no/parent"]
    assert read[b"f"][1] == b"1"
    root = read[b""][0].seen
    assert root is not None
    assert root.kind == "d"


async def test_steps_that_make_no_sense_are_refused(tree: Path, client: KeeperClient) -> None:
    me = os.getuid(), os.getgid()
    for wrong, error in (
        ((Remove(b""),), InvalidInput),
        ((Remove(b"../x"),), InvalidInput),
        ((Data(b"x"),), InvalidInput),
        (file(b"/absolute", b""), InvalidInput),
        (file(b"a/../b", b""), InvalidInput),
        (file(b"no parent/f", b""), Conflict),
        ((Write(Entry(b"h", EntryKind.HARDLINK, 0, 0, *me, target=b"nothing")),), Conflict),
        ((*file(b"f", b"12345"), Data(b"6")), InvalidInput),
        ((file(b"f", b"12345")[0], Data(b"123")), InvalidInput),
        ((file(b"f", b"12345")[0], Data(b"123"), *file(b"g", b"")), InvalidInput),
        ((file(b"f", b"12345")[0], Skip(6)), InvalidInput),
    ):
        with pytest.raises(error):
            await client.apply(these(*wrong), sync=False)
        assert os.listdir(tree) == [], wrong


async def test_a_folder_that_was_there_gets_the_attributes_of_its_entry_only(tree: Path, client: KeeperClient) -> None:
    (tree / "d").mkdir()
    os.setxattr(tree / "d", "user.old", b"1")
    entry = Entry(b"d", EntryKind.DIRECTORY, 0o711, 5, os.getuid(), os.getgid(), xattrs=((b"user.new", b"2"),))
    await client.apply(these(Write(entry)), sync=False)
    assert os.listxattr(tree / "d") == ["user.new"]
    assert os.stat(tree / "d").st_mode & 0o7777 == 0o711


async def test_what_cannot_be_kept_is_told_and_fatal_to_nothing(tree: Path, client: KeeperClient) -> None:
    told: list[tuple[str, str]] = []
    entry = Entry(b"f", EntryKind.FILE, 0o600, 5, os.getuid(), os.getgid(), xattrs=((b"nonsense", b"2"),))
    await client.apply(these(Write(entry)), sync=False, told=lambda path, why: told.append((path, why)))
    assert (tree / "f").exists()
    assert len(told) == 1
    assert told[0][0] == "f"
    assert "nonsense" in told[0][1]


async def test_more_holes_than_are_kept_are_read_as_zeros(tree: Path, client: KeeperClient) -> None:
    with (tree / "f").open("wb") as sparse:
        for number in range(5000):
            sparse.seek(number * 8192)
            sparse.write(b"x")
    assert len(holes_of(os.fsencode(tree / "f"))) > 4096
    found, data = (await read_all(client, [b"f"]))[b"f"]
    assert len(found.holes) == 4096
    assert len(data) == found.size - sum(length for _, length in found.holes)
    whole = bytearray()
    at = 0
    for start, length in found.holes:
        taken = start - len(whole)
        whole += data[at : at + taken] + bytes(length)
        at += taken
    assert bytes(whole) + data[at:] == (tree / "f").read_bytes()
