"""Backup: whole or none, new blobs only, and nothing that is not what was stored comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.domain.errors import Corrupt, NotFound, Unavailable
from atoll.services.backup import Backup
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

    async def start(self) -> None:
        for part in (self.here, self.there, self.vault):
            await part.start()
        for key, data in PACKS.items():
            await self.here.put(key, data)
        await self.here.put("other/thing", b"not ours to copy")

    async def make(self) -> str:
        made = await self.backup.make(self.dump, "the owner's key")
        assert made is not None
        return made.moment

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
    assert await ground.backup.restore_blobs() == (5, 25_000)
    assert ground.here.objects == PACKS
    assert await ground.restored() == (moment, "the owner's key")
    assert (ground.folder / "restored.db").read_bytes() == ground.dump.read_bytes()


async def test_the_next_copies_only_what_is_new(ground: Ground) -> None:
    await ground.make()
    await ground.here.put("lineages/lin_9/packs/pack_9", b"new")
    again = await ground.backup.make(ground.dump, None)
    assert again is not None
    assert (again.objects, again.bytes) == (1, 3)
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
        await ground.backup.make(ground.dump, None)
    assert await ground.backup.list() == [first]
    assert (await ground.restored())[0] == first


async def test_blobs_that_went_meanwhile_ask_for_another_dump(ground: Ground) -> None:
    assert await ground.backup.make(ground.dump, None, needed=PACKS.keys() | {"lineages/lin_0/packs/gone"}) is None
    assert await ground.backup.list() == []


async def test_the_oldest_go(ground: Ground) -> None:
    moments = [await ground.make() for _ in range(4)]
    assert await ground.backup.prune(2) == [moments[1], moments[0]]
    assert await ground.backup.list() == [moments[3], moments[2]]
    left = {key.split("/")[1] for key in ground.there.objects if key.startswith("backups/")}
    assert left == {moments[2], moments[3]}


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


async def test_no_such_backup(ground: Ground) -> None:
    with pytest.raises(NotFound, match="there is none"):
        await ground.restored()
    moment = await ground.make()
    with pytest.raises(NotFound, match=moment):
        await ground.restored("20010101T000000Z")


async def test_a_manifest_of_a_later_version_is_refused(ground: Ground) -> None:
    moment = await ground.make()
    key = f"backups/{moment}/manifest.json"
    ground.there.objects[key] = json.dumps({**json.loads(ground.there.objects[key]), "version": 2}).encode()
    with pytest.raises(Corrupt, match="later version"):
        await ground.restored()


async def test_in_the_store_of_the_blobs_itself(ground: Ground) -> None:
    backup = Backup(ground.here, ground.here, ground.vault)
    made = await backup.make(ground.dump, None)
    assert made is not None
    assert made.objects == 0
    assert (await backup.restore_records(None, ground.folder / "restored.db"))[0] == made.moment
