"""What may be stored has a bound: the bytes of one owner, exactly, and the free space of the server's disks."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from atoll.domain.errors import QuotaExceeded
from atoll.domain.ids import new_id
from atoll.domain.key import ApiKey, KeyKind
from atoll.domain.tree import chunk_id
from atoll.domain.workspace import Permission, Share
from atoll.services.workspaces.storage.allowance import Allowance, StorageFull, Use
from atoll.services.workspaces.storage.free_space import FreeSpace
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.services.workspaces.views import SentChunk
from atoll.testing.memory_blobs import MemoryBlobs
from tests.services.conftest import ALICE, BOB, until

from .storage import DAY, KIB, OWNER, SMALL, Storage, event, noise
from .workshop import Workshop, each

MOST = 300 * KIB


def objects(storage: Storage) -> int:
    assert isinstance(storage.blobs, MemoryBlobs)
    return sum(map(len, storage.blobs.objects.values()))


async def bounded(storage: Storage, most: int = MOST) -> None:
    await storage.restart(replace(SMALL, stored_bytes_max=most))


# bytes of an owner


async def test_what_is_stored_is_counted_to_the_byte_and_bounded(storage: Storage) -> None:
    await bounded(storage)
    one, other = (await storage.lineage()).id, (await storage.lineage()).id
    await storage.put(one, noise(1, 100 * KIB), noise(2, 90 * KIB))
    await storage.put(other, noise(3, 60 * KIB))
    with pytest.raises(StorageFull) as refused:
        await storage.put(other, noise(4, 60 * KIB))
    said = re.sub(r"[\d.]+ (bytes|KiB)", "N", refused.value.message, count=1)
    assert said.startswith("stored bytes limit reached: N of 300 KiB in all workspaces of this owner, and 60 KiB more ")
    assert "(workspaces.max_stored_bytes). Delete workspaces or snapshots" in said
    assert await storage.records.stored_bytes(OWNER) == objects(storage) <= MOST
    await storage.put(other, noise(1, 100 * KIB)[: 20 * KIB])  # what there is room for still goes
    await storage.put(one, noise(1, 100 * KIB))  # what the lineage has needs none
    assert await storage.records.stored_bytes(OWNER) == objects(storage) <= MOST


async def test_writers_at_once_never_store_more_than_the_owner_may(storage: Storage) -> None:
    await bounded(storage)
    lineages = [(await storage.lineage()).id for _ in range(2)]
    puts = [storage.put(lineages[n % 2], noise(n, 70 * KIB)) for n in range(12)]
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(outcome, StorageFull) for outcome in outcomes) == 8
    assert await storage.records.stored_bytes(OWNER) == objects(storage) <= MOST
    assert len(storage.packs) == len(await storage.records.list_packs()) == 4


async def test_a_pack_that_is_stored_is_recorded_also_when_its_writer_is_cut_off(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage = (await storage.lineage()).id
    add, asked, answers = storage.records.add_pack, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: object, **named: object) -> None:
        asked.set()
        await answers.wait()
        await add(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(storage.records, "add_pack", slow)
    putting = asyncio.create_task(storage.put(lineage, noise(1, 100 * KIB)))
    await asked.wait()
    putting.cancel()
    await asyncio.sleep(0)
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await storage.records.stored_bytes(OWNER) == objects(storage) > 100 * KIB


async def test_a_deletion_makes_room_when_the_collector_has_run(storage: Storage) -> None:
    await bounded(storage)
    workspace = await storage.workspace({b"f": noise(1, 250 * KIB)})
    with pytest.raises(StorageFull):
        await storage.workspace({b"f": noise(2, 250 * KIB)}, "other")
    await storage.keys.shred(workspace.lineage, event("lineage.shredded", workspace.lineage))
    await storage.collector.collect()  # a lineage that nobody can read is emptied at once, whatever its age
    assert await storage.records.list_packs(workspace.lineage) == []
    assert await storage.records.stored_bytes(OWNER) == objects(storage)
    await storage.workspace({b"f": noise(2, 250 * KIB)}, "other")


async def test_chunks_that_nothing_refers_to_count_until_they_are_collected(storage: Storage) -> None:
    await bounded(storage)
    workspace = await storage.workspace({b"f": b"small"})
    await storage.put(workspace.lineage, noise(1, 250 * KIB))
    with pytest.raises(StorageFull):
        await storage.revise(workspace, {b"f": noise(2, 100 * KIB)})
    storage.later(2 * DAY)
    await storage.collector.collect()
    await storage.revise(workspace, {b"f": noise(2, 100 * KIB)})
    assert await storage.files(await current(storage, workspace.id)) == {b"f": noise(2, 100 * KIB)}
    assert await storage.records.stored_bytes(OWNER) == objects(storage) <= MOST


async def current(storage: Storage, workspace_id: str):  # type: ignore[no-untyped-def]
    found = await storage.records.get_workspace(workspace_id)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", list(KeyKind))
async def test_standard_keys_have_the_limit_and_owner_and_internal_ones_have_none(
    storage: Storage, kind: KeyKind
) -> None:
    key = ApiKey(new_id("key"), "0" * 64, "atoll_0", "k", kind, frozenset(), datetime.now(UTC))
    await storage.records.add_key(key, event("key.created", key.id))
    use = Use(0, 5 if kind is KeyKind.STANDARD else None)
    assert await Allowance(storage.records, StorageLimits(stored_bytes_max=5)).use(key.id) == use
    assert await Allowance(storage.records, StorageLimits(stored_bytes_max=0)).use(key.id) == Use(0, None)


# workspaces of an owner who is at the limit


async def full(shop: Workshop) -> Workshop:
    """The same shop, whose owners may store as much as they have now, and a little."""
    stored = await shop.records.stored_bytes(ALICE.id)
    shop.storage_limits = StorageLimits(stored_bytes_max=stored + 20 * KIB)
    await shop.restart()
    return shop


async def test_a_tree_that_cannot_be_stored_stays_and_is_a_revision_once_there_is_room(shop: Workshop) -> None:
    await shop.create()
    big = await shop.create("big")
    await shop.push("big", big.head.revision.id, {b"f": noise(1, 200 * KIB)})
    await full(shop)
    sandbox = await shop.mount("w")
    (await shop.folder("w") / "kept").write_bytes(noise(2, 100 * KIB))
    with structlog.testing.capture_logs() as logs:
        await shop.sandboxes.stop(ALICE, sandbox.id)
        await until(lambda: any(line["event"] == "workspace.unrevised" for line in logs))
    assert any("workspaces.max_stored_bytes" in line.get("error", "") for line in logs)
    with pytest.raises(StorageFull):
        await shop.take()
    assert await shop.files("w") == {}
    assert (await shop.folder("w") / "kept").read_bytes() == noise(2, 100 * KIB)
    await shop.workspaces.delete(ALICE, "big")
    await shop.parts.collector.collect()
    await shop.parts.upkeep.reconcile()
    assert await shop.files("w") == {b"kept": noise(2, 100 * KIB)}


async def test_at_the_limit_what_needs_no_room_goes_on(shop: Workshop) -> None:
    made = await shop.create()
    first = await shop.push("w", made.head.revision.id, {b"f": noise(1, 200 * KIB)})
    await shop.push("w", first.revision.id, {b"f": b"small"})
    await full(shop)
    with pytest.raises(StorageFull):
        await shop.push("w", "HEAD", {b"g": noise(2, 200 * KIB)})
    await shop.workspaces.snapshots.create(ALICE, "w", name="kept")
    await shop.workspaces.restoring.restore(ALICE, "w", "2")
    await shop.workspaces.forks.fork(ALICE, "w", "fork")
    assert await shop.files("fork") == {b"f": noise(1, 200 * KIB)}


async def test_at_the_limit_a_collaborator_does_not_learn_what_the_owner_has_elsewhere(shop: Workshop) -> None:
    """A chunk that only another fork has is refused as one that nobody has is."""
    shared = (await shop.create("shared")).workspace
    fork = await shop.workspaces.forks.fork(ALICE, "shared", "fork")
    secret = noise(1, 200 * KIB)
    await shop.push("fork", fork.head.revision.id, {b"secret": secret})
    await shop.records.put_share(Share(shared.id, BOB.id, Permission.WRITE, shared.created_at), event("s", shared.id))
    await full(shop)

    async def send(data: bytes) -> str:
        import zstandard

        sent = SentChunk(chunk_id(data), len(data), zstandard.compress(data))
        with pytest.raises(QuotaExceeded) as refused:
            await shop.workspaces.sync.chunks(BOB, shared.id, each([sent]))
        return refused.value.message

    assert await send(secret) == await send(noise(2, len(secret)))


# free space of the disks


async def test_short_disks_refuse_what_stores_and_nothing_else(shop: Workshop) -> None:
    made = await shop.create()
    head = await shop.push("w", made.head.revision.id, {b"f": b"one"})
    other = await shop.create("other")
    await shop.mount("other")
    (await shop.folder("other") / "kept").write_bytes(b"kept")
    trees = set(await shop.runtime.list_trees())
    shop.storage_limits = StorageLimits(free_bytes_min=2**60)
    await shop.restart()
    stored = set(shop.blobs.objects)
    for storing in (
        lambda: shop.create("new"),
        lambda: shop.push("w", head.revision.id, {b"f": b"two"}),
        lambda: shop.workspaces.archives.import_archive(ALICE, "w", each([b"never read"])),
        lambda: shop.mount("w"),
        lambda: shop.take("other"),
    ):
        with pytest.raises(StorageFull, match=r"short of disk space \(workspaces.min_free_bytes\)"):
            await storing()
    assert set(shop.blobs.objects) == stored
    assert set(await shop.runtime.list_trees()) == trees
    assert await shop.files("w") == {b"f": b"one"}
    assert (await shop.folder("other") / "kept").read_bytes() == b"kept"
    await shop.parts.collector.collect()
    await shop.workspaces.delete(ALICE, "w")
    assert other.workspace.name == "other"


async def test_a_tree_that_is_being_filled_while_a_disk_becomes_short_goes_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await shop.create()
    await shop.push("w", made.head.revision.id, {b"a": noise(1, 300 * KIB), b"b": noise(2, 300 * KIB)})
    await shop.create("into")
    archive = await shop.workspaces.archives.export(ALICE, "w")
    packed = [piece async for piece in archive]
    looks: list[Path] = []

    def shrinking(folder: Path) -> int:
        looks.append(folder)
        return 2**50 if len(looks) < 3 else 0

    monkeypatch.setattr("atoll.services.workspaces.storage.free_space.KNOWN_S", 0.0)
    monkeypatch.setattr("atoll.services.workspaces.storage.free_space._free_bytes", shrinking)
    for filling in (
        lambda: shop.workspaces.archives.import_archive(ALICE, "into", each(packed)),
        lambda: shop.mount("w"),
    ):
        looks.clear()
        with pytest.raises(StorageFull, match="short of disk space"):
            await filling()
        assert len(looks) >= 3
        assert await shop.runtime.list_trees() == []


async def test_disks_are_looked_at_where_a_folder_is_going_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.services.workspaces.storage.free_space.KNOWN_S", 0.0)
    await FreeSpace([tmp_path / "not" / "there"], 1).check()
    await FreeSpace([tmp_path]).check()
    short = FreeSpace([tmp_path, tmp_path / "not" / "there"], 2**62)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(StorageFull):
                await short.check()
    assert [line["event"] for line in logs] == ["workspaces.disk_short"]
