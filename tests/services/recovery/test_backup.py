"""Backup: whole or none, new blobs only, and nothing that is not what was stored comes back."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atoll.blobs.local_disk import LocalDisk
from atoll.domain.errors import Corrupt, NotFound, Unavailable
from atoll.services.recovery.backup import Backup
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_vault import MemoryVault

PACKS = {f"lineages/lin_{n}/packs/pack_{n}": bytes([n]) * 5_000 for n in range(5)}


class Ground:
    """Two stores, a vault, and a dump of some size."""

    def __init__(self, folder: Path) -> None:
        self.here, self.there, self.vault = MemoryBlobs(), MemoryBlobs(), MemoryVault()
        self.folder = folder
        self.dump = folder / "dump.db"
        self.dump.write_bytes(b"records " * 2_000_000)
        self.backup = Backup(self.here, self.there, self.vault)
        self.needed = {key: len(data) for key, data in PACKS.items()}

    async def start(self) -> None:
        for part in (self.here, self.there, self.vault):
            await part.start()
        for key, data in PACKS.items():
            await self.here.put(key, data)
        await self.here.put("other/thing", b"not ours to copy")

    async def dumped(self, file: Path) -> dict[str, int]:
        await asyncio.to_thread(shutil.copy, self.dump, file)
        return dict(self.needed)

    async def make(self) -> str:
        return (await self.backup.make(self.dumped, "the owner's key")).moment

    async def restored(self, moment: str | None = None) -> tuple[str, str | None]:
        file = self.folder / "restored.db"
        file.unlink(missing_ok=True)
        return await self.backup.restore_records(moment, file)


@pytest.fixture
async def ground(tmp_path: Path) -> Ground:
    made = Ground(tmp_path)
    await made.start()
    return made


async def test_there_and_back(ground: Ground) -> None:
    moment = await ground.make()
    assert {key: ground.there.objects[key] for key in PACKS} == PACKS
    assert "other/thing" not in ground.there.objects
    ground.here.objects.clear()
    assert await ground.backup.restore_blobs(moment) == (5, 25_000)
    assert ground.here.objects == PACKS
    assert await ground.backup.restore_blobs(moment) == (0, 0)
    assert await ground.restored() == (moment, "the owner's key")
    assert (ground.folder / "restored.db").read_bytes() == ground.dump.read_bytes()


async def test_the_next_copies_only_what_is_new(ground: Ground) -> None:
    await ground.make()
    await ground.here.put("lineages/lin_9/packs/pack_9", b"new")
    ground.needed["lineages/lin_9/packs/pack_9"] = 3
    ground.there.calls.clear()
    again = await ground.backup.make(ground.dumped, None)
    assert (again.objects, again.bytes) == (1, 3)
    assert ground.there.calls["read"] == 0, "what the last one hashed is read again"
    assert len(await ground.backup.list()) == 2
    assert (await ground.backup.list())[0] == again.moment


async def test_nothing_readable_lies_in_the_store(ground: Ground) -> None:
    await ground.make()
    stored = b"".join(data for key, data in ground.there.objects.items() if key.startswith("backups/"))
    assert b"records records" not in stored
    assert b"owner's key" not in stored


async def test_a_cut_backup_is_none(ground: Ground) -> None:
    first = await ground.make()
    ground.there.fail_next(1, after=4)
    with pytest.raises(Unavailable):
        await ground.backup.make(ground.dumped, None)
    assert await ground.backup.list() == [first]
    assert (await ground.restored())[0] == first


async def test_blobs_that_went_meanwhile_ask_for_another_dump(ground: Ground) -> None:
    dumps = 0

    async def moving(file: Path) -> dict[str, int]:
        nonlocal dumps
        dumps += 1
        return await ground.dumped(file) | ({"lineages/lin_0/packs/gone": 7} if dumps == 1 else {})

    assert (await ground.backup.make(moving, None)).lost == ()
    assert dumps == 2


async def test_what_is_lost_is_told_and_does_not_keep_the_rest_from_being_backed_up(ground: Ground) -> None:
    lost, *others = PACKS
    del ground.here.objects[lost]
    made = await ground.backup.make(ground.dumped, None)
    assert made.lost == (lost,)
    ground.here.objects.clear()
    await ground.backup.restore_blobs(made.moment)
    assert ground.here.objects == {key: PACKS[key] for key in others}


async def test_the_oldest_go(ground: Ground) -> None:
    moments = [await ground.make() for _ in range(4)]
    assert await ground.backup.prune(2) == [moments[1], moments[0]]
    assert await ground.backup.list() == [moments[3], moments[2]]
    left = {key.split("/")[1] for key in ground.there.objects if key.startswith("backups/")}
    assert left == {moments[2], moments[3]}


async def test_backups_of_another_master_key_neither_go_nor_count(ground: Ground) -> None:
    other = Backup(ground.here, ground.there, MemoryVault())
    mine = [await ground.make()]
    others = [(await other.make(ground.dumped, None)).moment for _ in range(2)]
    mine.append(await ground.make())
    others.append((await other.make(ground.dumped, None)).moment)
    assert await ground.backup.prune(2) == []
    assert (await ground.backup.newest(), await other.newest()) == (mine[1], others[2])
    assert await ground.backup.prune(1) == [mine[0]]
    assert sorted(await ground.backup.list()) == sorted([mine[1], *others])
    ground.there.calls.clear()
    await ground.make()
    assert ground.there.calls["read"] == 0, "the newest of another keeps ours from being used"


async def test_what_was_cut_short_long_ago_goes(ground: Ground) -> None:
    await ground.make()
    for moment, age in (("20200101T000000Z", timedelta(days=2)), ("20200101T000001Z", timedelta(hours=1))):
        await ground.there.put(f"backups/{moment}/records-00000", b"half")
        ground.there.modified_at[f"backups/{moment}/records-00000"] = datetime.now(UTC) - age
    assert await ground.backup.prune(2) == []
    half = [key for key in ground.there.objects if key.endswith("Z/records-00000") and key.startswith("backups/2020")]
    assert half == ["backups/20200101T000001Z/records-00000"], "the younger one may still be on its way"


async def test_dumps_of_killed_processes_go_and_nothing_else(ground: Ground, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    names = ["backup-2026-11-20", "dump-0123456789abcdef", "dump-mine", f"dump-{'a' * 16}"]
    for name in names:
        (scratch / name).mkdir(parents=True)
        (scratch / name / "records.db").write_bytes(b"dump")
    (scratch / f"dump-{'b' * 16}").symlink_to(tmp_path)
    alive = os.open(scratch / names[3], os.O_RDONLY)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        await Backup(ground.here, ground.there, ground.vault, scratch=scratch).make(ground.dumped, None)
    finally:
        os.close(alive)
    assert sorted(os.listdir(scratch)) == sorted([names[0], names[2], names[3], f"dump-{'b' * 16}"])
    assert (scratch / names[0] / "records.db").exists()


@pytest.mark.parametrize("name", ["records-00000", "manifest.json"])
async def test_a_flipped_byte_is_found(ground: Ground, name: str) -> None:
    moment = await ground.make()
    key = f"backups/{moment}/{name}"
    ground.there.flip(key, len(ground.there.objects[key]) // 2)
    with pytest.raises(Corrupt):
        await ground.restored()
    assert not (ground.folder / "restored.db").exists()


async def test_pieces_of_another_backup_do_not_pass(ground: Ground) -> None:
    first, second = await ground.make(), await ground.make()
    ground.there.objects[f"backups/{second}/records-00000"] = ground.there.objects[f"backups/{first}/records-00000"]
    with pytest.raises(Corrupt):
        await ground.restored(second)
    assert (await ground.restored(first))[0] == first


async def test_another_master_key_opens_nothing(ground: Ground) -> None:
    await ground.make()
    stranger = MemoryVault()
    await stranger.start()
    with pytest.raises(Corrupt):
        await Backup(ground.here, ground.there, stranger).restore_records(None, ground.folder / "restored.db")
    assert (await Backup(ground.here, ground.there, ground.vault).make(ground.dumped, None)).objects == 0


async def test_no_such_backup(ground: Ground) -> None:
    with pytest.raises(NotFound, match="there is none"):
        await ground.restored()
    moment = await ground.make()
    with pytest.raises(NotFound, match=moment):
        await ground.restored("20010101T000000Z")


async def test_a_manifest_of_a_later_version_is_refused(ground: Ground) -> None:
    moment = await ground.make()
    key = f"backups/{moment}/manifest.json"
    ground.there.objects[key] = json.dumps({**json.loads(ground.there.objects[key]), "version": 3}).encode()
    with pytest.raises(Corrupt, match="another version"):
        await ground.restored()


async def test_in_the_store_of_the_blobs_itself(ground: Ground) -> None:
    backup = Backup(ground.here, ground.here, ground.vault)
    made = await backup.make(ground.dumped, None)
    assert made.objects == 0
    assert await backup.restore_blobs(made.moment) == (0, 0)
    ground.here.flip(next(iter(PACKS)))
    with pytest.raises(Corrupt, match="not what was stored"):
        await backup.restore_blobs(made.moment)
    assert (await backup.restore_records(None, ground.folder / "restored.db"))[0] == made.moment


@pytest.mark.parametrize("harm", ["flipped", "cut", "longer", "missing"])
async def test_a_damaged_object_is_refused_and_nothing_is_put_in_place(ground: Ground, harm: str) -> None:
    moment = await ground.make()
    damaged, kept = list(PACKS)[3], next(iter(PACKS))
    data = PACKS[damaged]
    if harm == "missing":
        del ground.there.objects[damaged]
    else:
        changed = {"flipped": data[:100] + b"\xff" + data[101:], "cut": data[:-1], "longer": data + b"x"}
        ground.there.objects[damaged] = changed[harm]
    ground.here.objects = {kept: PACKS[kept], "other/thing": b"ours"}
    before = dict(ground.here.objects)
    with pytest.raises(Corrupt, match=f"nothing was restored: {damaged}"):
        await ground.backup.restore_blobs(moment)
    assert ground.here.objects == before
    ground.there.objects[damaged] = data
    assert await ground.backup.restore_blobs(moment) == (4, 20_000)


async def test_a_damaged_object_of_the_machine_is_replaced_by_the_backups(ground: Ground) -> None:
    moment = await ground.make()
    ground.here.flip(next(iter(PACKS)), 50)
    assert await ground.backup.restore_blobs(moment) == (1, 5_000)
    assert {key: ground.here.objects[key] for key in PACKS} == PACKS


async def test_a_folder_with_links_in_it_is_refused(ground: Ground, tmp_path: Path) -> None:
    store = LocalDisk(tmp_path / "store")
    await store.start()
    backup = Backup(ground.here, store, ground.vault)
    moment = (await backup.make(ground.dumped, None)).moment
    ground.here.objects.clear()
    pack = tmp_path / "store" / "objects" / next(iter(PACKS))
    for target in (pack, pack.parent, pack.parent.parent):  # the object, and folders above it
        real = target.with_name("real")
        target.rename(real)
        target.symlink_to(real)
        with pytest.raises(Corrupt, match="nothing was restored"):
            await backup.restore_blobs(moment)
        target.unlink()
        real.rename(target)
    pack.unlink()
    os.mkfifo(pack)
    with pytest.raises(Corrupt, match="nothing was restored"):
        await backup.restore_blobs(moment)
    assert ground.here.objects == {}
    await store.close()


async def test_a_folder_that_is_only_read_stays_as_it_is(ground: Ground, tmp_path: Path) -> None:
    missing = LocalDisk(tmp_path / "mistyped", read_only=True)
    with pytest.raises(NotFound, match="mistyped"):
        await missing.start()
    assert not (tmp_path / "mistyped").exists()
    store = LocalDisk(tmp_path / "store")
    await store.start()
    moment = (await Backup(ground.here, store, ground.vault).make(ground.dumped, None)).moment
    await store.close()
    (tmp_path / "store" / "partial").rmdir()
    reading = LocalDisk(tmp_path / "store", read_only=True)
    await reading.start()
    ground.here.objects.clear()
    await Backup(ground.here, reading, ground.vault).restore_blobs(moment)
    assert ground.here.objects == PACKS
    assert not (tmp_path / "store" / "partial").exists()
    await reading.close()
