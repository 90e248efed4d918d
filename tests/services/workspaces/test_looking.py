"""What is passed over in a look at a tree: never anything that a look at everything would tell."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.domain.errors import TooLarge
from atoll.domain.tree import EntryKind, chunk_id
from atoll.services.workspaces.trees import looking
from atoll.services.workspaces.trees.reading import Reading, read_tree
from atoll.services.workspaces.trees.stamps import TreeState
from atoll.sidekick.keeper_client import KeeperClient
from atoll.testing.local_keeper import LocalKeeper
from tests.services.conftest import ALICE

from .workshop import Workshop

NAMES = ("a", "b", "c", "d")
SETTLED_S = 0.03  # after which stamps are trusted


@dataclass
class Sink:
    taken: list[bytes] = field(default_factory=list)

    async def add_many(self, data: list[bytes]) -> list[bytes]:  # type: ignore[override]
        self.taken += data
        return list(map(chunk_id, data))


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[LocalKeeper]:
    (tmp_path / "tree").mkdir()
    made = LocalKeeper(str(tmp_path / "tree"))
    yield made
    made.close()


async def look(client: KeeperClient, before: Reading | None, sink: Sink | None = None) -> Reading:
    state = None if before is None else TreeState("t", before.known, before.scanned)
    return await read_tree(client, state, sink or Sink())


@pytest.mark.parametrize("seed", range(4))
async def test_looks_one_after_the_other_tell_what_a_fresh_one_tells(keeper: LocalKeeper, seed: int) -> None:
    chance, root = random.Random(seed), Path(keeper.folder)
    before: Reading | None = None
    for _ in range(25):
        for _ in range(chance.randrange(4)):
            change(chance, root)
        if chance.random() < 0.6:
            await asyncio.sleep(SETTLED_S)
        before = await look(keeper.client, before)
        assert before.entries == (await look(keeper.client, None)).entries


def change(chance: random.Random, root: Path) -> None:
    """One of what tenants do, somewhere in the tree; what does not work there is left."""
    path = root.joinpath(*chance.choices(NAMES, k=chance.randint(1, 3)))
    other = root.joinpath(*chance.choices(NAMES, k=chance.randint(1, 3)))
    try:
        match chance.randrange(10):
            case 0 | 1:
                path.mkdir(parents=True)
            case 2 | 3:
                path.write_bytes(chance.randbytes(3))
            case 4:
                os.link(other, path)
            case 5:
                os.rename(other, path)
            case 6:
                path.unlink()
            case 7:
                shutil.rmtree(path)
            case 8:
                os.symlink(chance.choice(NAMES), path)
            case _:
                path.chmod(chance.choice((0o700, 0o755)))
    except OSError:
        pass


async def test_folders_that_are_as_before_are_not_unpacked(
    keeper: LocalKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(keeper.folder)
    for name in NAMES:
        (root / name).mkdir()
        (root / name / "file").write_text(name)
    await asyncio.sleep(SETTLED_S)
    before = await look(keeper.client, None)
    unpacked: list[bytes] = []
    unpack = looking.unpack_scan
    monkeypatch.setattr(looking, "unpack_scan", lambda packed: unpacked.append(packed) or unpack(packed))
    again = await look(keeper.client, before)
    assert (again.changed, again.known, unpacked) == (False, before.known, [])
    (root / "a" / "file").write_text("other")
    sink = Sink()
    changed = await look(keeper.client, again, sink)
    assert (changed.changed, len(unpacked), sink.taken) == (True, 1, [b"other"])


async def test_what_was_written_just_before_a_look_is_read_by_the_next(keeper: LocalKeeper) -> None:
    root = Path(keeper.folder)
    (root / "old").write_text("old")
    await asyncio.sleep(SETTLED_S)
    (root / "d").mkdir()
    (root / "d" / "new").write_text("new")
    first = await look(keeper.client, None)
    assert b"d" not in first.scanned.folders
    sink = Sink()
    await look(keeper.client, first, sink)
    assert sink.taken == [b"new"]


async def test_a_further_name_in_another_folder_makes_the_first_name_another(keeper: LocalKeeper) -> None:
    root = Path(keeper.folder)
    for name in ("a", "m", "z"):
        (root / name).mkdir()
    (root / "m" / "file").write_text("x")
    os.link(root / "m" / "file", root / "z" / "file")
    await asyncio.sleep(SETTLED_S)
    before = await look(keeper.client, None)
    assert b"z" in before.scanned.linked
    os.link(root / "z" / "file", root / "a" / "file")
    await asyncio.sleep(SETTLED_S)
    after = await look(keeper.client, before)
    kinds = {entry.path: (entry.kind, entry.target) for entry in after.entries if entry.path.endswith(b"file")}
    assert kinds == {
        b"a/file": (EntryKind.FILE, b""),
        b"m/file": (EntryKind.HARDLINK, b"a/file"),
        b"z/file": (EntryKind.HARDLINK, b"a/file"),
    }


async def test_a_further_name_stays_one_when_only_its_folder_changed(keeper: LocalKeeper) -> None:
    root = Path(keeper.folder)
    for name in ("a", "b"):
        (root / name).mkdir()
    (root / "a" / "file").write_text("x")
    os.link(root / "a" / "file", root / "b" / "file")
    await asyncio.sleep(SETTLED_S)
    before = await look(keeper.client, None)
    (root / "b" / "other").write_text("y")
    after = {entry.path: entry for entry in (await look(keeper.client, before)).entries}
    assert (after[b"b/file"].kind, after[b"b/file"].target) == (EntryKind.HARDLINK, b"a/file")


async def test_a_path_that_no_revision_can_have_stops_revisions_and_restores(shop: Workshop) -> None:
    """To leave it out in silence would be to lose it with the next restore."""
    created = (await shop.create()).workspace.head
    await shop.mount("w")
    folder = await shop.folder("w")
    deep = folder.joinpath(*["d"] * 257)
    deep.mkdir(parents=True)
    (folder / "file").write_text("kept")
    with pytest.raises(TooLarge, match="256 parts"):
        await shop.take()
    with pytest.raises(TooLarge):
        await shop.workspaces.restoring.restore(ALICE, "w", created)
    assert deep.is_dir()
    deep.rmdir()
    await shop.take()
    assert (await shop.files("w"))[b"file"] == b"kept"
