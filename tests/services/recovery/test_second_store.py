"""The second store: everything gets there, however often it fails; what is lost here comes back from there."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from atoll.blobs.local_disk import LocalDisk
from atoll.domain import crash
from atoll.domain.errors import Conflict, Corrupt, Unavailable
from atoll.domain.workspace import Workspace
from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from atoll.services.recovery import second_store
from atoll.services.recovery.backup import Backup
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.ownership import MARKER, claim
from atoll.services.workspaces.storage import healing
from atoll.services.workspaces.storage.packs import pack_key
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_vault import MemoryVault
from tests.services.recovery.ground import FILES, LIMITS, Ground
from tests.services.workspaces.storage import DAY, KIB, Storage, noise


async def test_everything_gets_there_and_then_only_what_is_new(ground: Ground) -> None:
    workspace = await ground.storage.workspace(FILES)
    await ground.job.pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]
    ground.second.calls.clear()
    await ground.storage.revise(workspace, FILES | {b"new": noise(99, KIB)})
    await ground.job.pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]
    assert ground.second.calls["write"] == 1
    assert ground.second.calls["list"] == 0
    assert ground.job.lag.error is None
    assert ground.metric("blobs_copy_waiting") == 0


async def test_a_failing_store_is_asked_again_and_its_lag_is_told(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    count = len(ground.storage.packs)
    assert count > 2
    ground.second.fail_next(1, after=5)  # the marker (3), the listing, one object, then a failure
    ground.storage.later(timedelta(seconds=90))
    with pytest.raises(Unavailable, match="1 objects are not copied"):
        await ground.job.pass_()
    assert len(ground.copied()) == count - 1
    assert ground.job.describe()["status"] == "unhealthy"
    assert (ground.metric("blobs_copy_waiting"), ground.metric("blobs_copy_failures_total")) == (1, 1)
    assert ground.metric("blobs_copy_lag_seconds") == pytest.approx(90, abs=5)
    await ground.job.pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]
    assert ground.job.describe() == {
        "status": "healthy",
        "detail": "0 objects (0 bytes), 0 s behind; 0 lost; last whole pass 0 s ago",
    }


async def test_in_the_background_it_goes_on_where_it_was_cut(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    for number in range(3):  # a server that is killed after each object
        ground.second.fail_next(1_000, after=3 if number else 5)
        with pytest.raises(Unavailable):
            await ground.new_job().pass_()
    there = len(ground.copied())
    assert there == 3
    ground.second.fail_next(5)
    await ground.new_job().start()
    async with asyncio.timeout(10):
        while ground.copied() != ground.first.objects:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await ground.job.close()


async def test_a_store_that_hangs_holds_nobody_up(ground: Ground) -> None:
    workspace = await ground.storage.workspace(FILES)
    ground.heal()
    ground.second.answers.clear()
    await ground.job.start()
    await asyncio.sleep(0.05)
    assert await ground.storage.files(workspace) == FILES
    async with asyncio.timeout(5):
        await ground.job.close()


async def test_what_the_collector_deletes_goes_there_too_after_the_grace(ground: Ground) -> None:
    workspace = await ground.storage.workspace(FILES)
    gone = await ground.storage.workspace({b"f": noise(7, 9 * KIB)}, "gone")
    await ground.second.start()
    await ground.second.put("lineages/lin_other/packs/pack_other", b"another server's")
    await ground.job.pass_()
    records, storage = ground.storage.records, ground.storage
    await storage.destroy(gone)
    assert len(await records.list_lineages()) == 1
    before = ground.copied()
    await ground.job.pass_()
    assert ground.copied() == before, "nothing goes before the grace"
    storage.later(DAY + timedelta(seconds=1))
    await ground.new_job().pass_()  # a restart does not begin the grace anew
    assert ground.copied() == ground.first.objects | {  # type: ignore[attr-defined]
        "lineages/lin_other/packs/pack_other": b"another server's"
    }
    assert await storage.files(workspace) == FILES


async def test_what_a_backup_needs_stays_until_the_backup_goes(ground: Ground) -> None:
    storage = ground.storage
    gone = await storage.workspace(FILES)
    ground.new_job(replace(LIMITS, backup_every_s=DAY.total_seconds(), backups_kept=1))
    await ground.job.pass_()
    first = ground.job.lag.backup
    assert first is not None
    kept = ground.copied()
    await storage.destroy(gone)
    assert ground.first.objects == {}  # type: ignore[attr-defined]
    ground.new_job()
    for _ in range(2):
        await ground.job.pass_()
        storage.later(2 * DAY)
    assert ground.copied() == kept
    ground.new_job(replace(LIMITS, backup_every_s=DAY.total_seconds(), backups_kept=1))
    await ground.job.pass_()
    assert ground.job.lag.backup != first
    await ground.job.pass_()
    assert ground.copied() == {}


async def test_a_backup_that_nobody_can_read_keeps_everything(ground: Ground) -> None:
    storage = ground.storage
    workspace = await storage.workspace(FILES)
    await ground.job.pass_()
    await ground.second.put("backups/20200101T000000Z/manifest.json", b"{}")
    lineage, pack = ground.storage.packs[0].split("/")[1], ground.storage.packs[0].split("/")[3]
    await storage.records.delete_packs([pack])
    for _ in range(2):
        storage.later(2 * DAY)
        await ground.job.pass_()
    assert pack_key(lineage, pack) in ground.copied()
    assert workspace.lineage == lineage


async def test_the_servers_backups_restore_on_an_empty_machine(ground: Ground, tmp_path: Path) -> None:
    workspace = await ground.storage.workspace(FILES)
    ground.new_job(replace(LIMITS, backup_every_s=DAY.total_seconds(), backups_kept=2))
    await ground.job.pass_()
    assert ground.second.calls["read"] == 0, "what was copied a moment ago is read again for its hash"
    for _ in range(3):
        await ground.job.pass_()
    empty = MemoryBlobs()
    await empty.start()
    backup = Backup(empty, ground.second, ground.storage.vault)
    assert len(await backup.list()) == 1
    moment, owner_key = await backup.restore_records(None, tmp_path / "restored.db")
    assert owner_key == "the owner's key"
    await backup.restore_blobs(moment)
    records = SqlRecords(Sqlite(tmp_path / "restored.db"))
    await records.start()
    again = Storage(records, empty, vault=ground.storage.vault)
    assert await again.files(workspace) == FILES
    await again.chunks.close()
    await records.close()


@pytest.mark.parametrize("harm", ["lost", "flipped", "cut"])
async def test_reading_and_verifying_heal_from_the_copy(ground: Ground, harm: str) -> None:
    workspace = await ground.storage.workspace(FILES)
    await ground.job.pass_()
    ground.heal()
    whole = dict(ground.first.objects)  # type: ignore[attr-defined]
    _harm(ground, harm)
    assert await ground.storage.files(workspace) == FILES
    assert ground.first.objects == whole  # type: ignore[attr-defined]
    _harm(ground, harm)
    await ground.storage.restart()
    ground.heal()
    assert (await ground.storage.verifier.verify(workspace)).corrupt == []
    assert ground.first.objects == whole  # type: ignore[attr-defined]
    assert ground.metric("blobs_healed_total") >= 2


async def test_a_copy_that_is_damaged_or_does_not_answer_heals_nothing(ground: Ground) -> None:
    workspace = await ground.storage.workspace(FILES)
    await ground.job.pass_()
    ground.heal()
    _harm(ground, "flipped")
    harmed = dict(ground.first.objects)  # type: ignore[attr-defined]
    ground.second.fail_next(1_000)
    await _assert_corrupt(ground, workspace)
    ground.second.fail_next(0)
    for key in list(ground.copied()):
        ground.second.flip(key, 50)
    await _assert_corrupt(ground, workspace)
    assert ground.first.objects == harmed  # type: ignore[attr-defined]


async def test_a_second_store_that_hangs_holds_reads_up_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    await ground.storage.workspace(FILES)
    await ground.job.pass_()
    monkeypatch.setattr(healing, "HEAL_S", 0.05)
    healer = ground.new_healer()
    ground.second.answers.clear()
    ground.second.calls.clear()
    packs = [(key.split("/")[1], key.split("/")[3]) for key in ground.storage.packs]
    assert len(packs) > healing.AT_ONCE
    for _ in range(2):
        async with asyncio.timeout(5):  # the wait for the turn counts: with more packs it does not grow
            found = await asyncio.gather(*(healer.heal(lineage, pack, bytes(32)) for lineage, pack in packs))
        assert found == [False] * len(packs)
    assert ground.second.calls["get"] == healing.AT_ONCE, "asked again at once, or after the time was over"
    monkeypatch.setattr(healing, "FAILED_S", 0.0)
    await healer.heal(*packs[0], bytes(32))
    assert ground.second.calls["get"] == healing.AT_ONCE + 1
    ground.second.answers.set()


async def test_what_both_stores_lack_is_told_and_holds_up_nothing(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    lost = ground.storage.packs[0]
    del ground.first.objects[lost]  # type: ignore[attr-defined]
    await ground.job.pass_()
    assert ground.job.lag.lost == (lost,)
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]
    assert ground.metric("blobs_lost") == 1 and ground.metric("blobs_copy_waiting") == 0
    told = ground.job.describe()
    assert told["status"] == "unhealthy" and "1 lost (in neither store)" in told["detail"]
    with capture_logs() as logs:
        await ground.job.pass_()
    assert logs == [], "told again in each pass"


@pytest.mark.parametrize("second", ["damaged", "missing"])
async def test_what_reading_finds_whole_in_neither_store_is_lost_until_it_is_read_whole(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.setattr(healing, "FAILED_S", 0.0)
    workspace = await ground.storage.workspace(FILES)
    await ground.job.pass_()
    ground.heal()
    whole = dict(ground.first.objects)  # type: ignore[attr-defined]
    for key in whole:
        ground.first.flip(key, 50)  # type: ignore[attr-defined]
        if second == "damaged":
            ground.second.flip(key, 50)
        else:
            del ground.second.objects[key]
    ground.second.fail_next(1_000)
    assert (await ground.storage.verifier.verify(workspace)).corrupt
    assert ground.unreadable == set(), "nobody knows what a store has that does not answer"
    ground.second.fail_next(0)
    for round_ in range(2):
        assert (await ground.storage.verifier.verify(workspace)).corrupt
        told = ground.job.describe()
        assert told["status"] == "unhealthy" and f"{len(ground.unreadable)} lost (in neither store)" in told["detail"]
        with capture_logs() as logs:
            await ground.job.pass_()
        assert [one["event"] for one in logs] == (["second_store.lost"] if round_ == 0 else [])
        assert ground.metric("blobs_lost") == len(ground.unreadable) > 0
    ground.first.objects.update(whole)  # type: ignore[attr-defined]
    assert (await ground.storage.verifier.verify(workspace)).corrupt == []
    assert ground.job.describe()["status"] == "healthy"
    await ground.job.pass_()
    assert ground.metric("blobs_lost") == 0


async def test_what_is_collected_is_not_lost(ground: Ground) -> None:
    workspace = await ground.storage.workspace(FILES)
    await ground.job.pass_()
    healer = ground.new_healer()
    key = ground.storage.packs[0]
    _, lineage, _, pack = key.split("/")
    del ground.first.objects[key], ground.second.objects[key]  # type: ignore[attr-defined]
    assert not await healer.heal(lineage, pack, bytes(32))
    assert ground.unreadable == {key}
    await ground.storage.destroy(workspace)
    assert not await ground.new_healer().heal(lineage, pack, bytes(32))
    await ground.job.pass_()
    assert (ground.unreadable, ground.job.describe()["status"]) == (set(), "healthy")
    assert not await ground.new_healer().heal(lineage, pack, bytes(32))
    assert ground.unreadable == set()


async def test_a_store_that_is_down_from_the_start_has_a_lag(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    ground.second.fail_next(1)
    with pytest.raises(Unavailable):
        await ground.job.pass_()
    assert ground.metric("blobs_copy_waiting") == len(ground.storage.packs)
    assert ground.job.describe()["detail"].startswith(f"{len(ground.storage.packs)} objects (")
    await ground.job.pass_()
    ground.second.fail_next(1)
    with pytest.raises(Unavailable):
        await ground.new_job().pass_()  # what the journal has is there, as far as anybody knows
    assert ground.metric("blobs_copy_waiting") == 0


async def test_a_store_of_another_installation_gets_nothing(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    other = MemoryVault()
    await ground.second.start()
    await claim(ground.second, other)
    before = dict(ground.second.objects)
    for _ in range(2):
        with pytest.raises(Conflict, match="another master key"):
            await ground.job.pass_()
    assert ground.second.objects == before
    told = ground.job.describe()
    assert told["status"] == "unhealthy" and "belongs to another installation" in told["detail"]
    del ground.second.objects[MARKER]  # its operator gives it up
    await ground.job.pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]
    await ground.new_job().pass_()
    with pytest.raises(Conflict):
        await claim(ground.second, other)


async def test_one_object_that_hangs_ends_at_its_deadline(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    await ground.storage.workspace(FILES)
    await ground.job.pass_()
    await ground.storage.workspace({b"more": noise(77, KIB)}, "more")
    monkeypatch.setattr(second_store, "OBJECT_S", 0.02)
    ground.second.answers.clear()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match=r"copying an object to the second store took longer than 0\.02 s"):
            await ground.job.pass_()
    assert ground.metric("blobs_copy_waiting") == 1
    ground.second.answers.set()
    await ground.job.pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]


async def test_a_cancelled_pass_does_not_begin_to_delete(ground: Ground) -> None:
    storage = ground.storage
    await storage.workspace(FILES)
    ground.new_job(replace(LIMITS, grace_s=0.0))
    await ground.job.pass_()
    await storage.records.delete_packs([storage.packs[0].split("/")[3]])
    await storage.workspace({b"more": noise(77, KIB)}, "more")
    ground.second.calls.clear()
    ground.second.answers.clear()
    running = asyncio.create_task(ground.job.pass_())
    async with asyncio.timeout(10):
        while not ground.second.calls["write"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (ground.second.calls["list"], ground.second.calls["delete"]) == (0, 0)


async def test_what_a_backup_needs_is_read_once(ground: Ground) -> None:
    storage = ground.storage
    await storage.workspace(FILES)
    ground.new_job(replace(LIMITS, backup_every_s=DAY.total_seconds()))
    await ground.job.pass_()
    ground.new_job()
    await storage.records.delete_packs([storage.packs[0].split("/")[3]])
    await ground.job.pass_()
    storage.later(2 * DAY)
    await ground.job.pass_()
    before = ground.second.calls["get"]
    assert storage.packs[0] in ground.copied()
    for _ in range(3):
        await ground.job.pass_()
    assert ground.second.calls["get"] == before, "each pass reads the inventories"


async def test_c01_killed_between_the_store_and_the_journal(ground: Ground) -> None:
    def die(name: str) -> None:
        raise RuntimeError(name)

    storage = ground.storage
    gone = await storage.workspace(FILES)
    with crash.armed("backup.object_copied", die), pytest.raises(RuntimeError):
        await ground.job.pass_()
    await ground.new_job().pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]
    await storage.destroy(gone)
    await ground.job.pass_()
    storage.later(2 * DAY)
    with crash.armed("backup.object_deleted", die), pytest.raises(RuntimeError):
        await ground.job.pass_()
    journal = CopyJournal(ground.folder / "copied.jsonl", "s3://b")
    journal.load()
    assert journal.copied.keys() > ground.copied().keys(), "the journal is ahead of the store"
    await ground.new_job().pass_()
    assert ground.copied() == {}
    journal.load()
    assert journal.copied == {}


async def test_an_object_that_fails_every_time_keeps_no_other_from_its_copy(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    failing = ground.storage.packs[0]
    place = ground.second._place  # pyright: ignore[reportPrivateUsage]

    def refuse(key: str, data: bytes) -> None:
        if key == failing:
            raise Unavailable("this one never")
        place(key, data)

    ground.second._place = refuse  # type: ignore[method-assign]
    ground.new_job(replace(LIMITS, backup_every_s=DAY.total_seconds()))
    for _ in range(2):
        with pytest.raises(Unavailable, match="this one never"):
            await ground.job.pass_()
    assert ground.copied() == {key: data for key, data in ground.first.objects.items() if key != failing}  # type: ignore[attr-defined]
    ground.second._place = place  # type: ignore[method-assign]
    await ground.job.pass_()
    assert ground.job.lag.backup is not None


async def test_what_the_second_store_lost_is_copied_again(ground: Ground) -> None:
    await ground.storage.workspace(FILES)
    await ground.job.pass_()
    ground.second.objects.clear()
    ground.storage.later(timedelta(seconds=LIMITS.relist_s + 1))
    await ground.job.pass_()
    assert ground.copied() == ground.first.objects  # type: ignore[attr-defined]


async def test_another_store_or_a_damaged_journal_deletes_nothing(ground: Ground) -> None:
    storage = ground.storage
    await storage.workspace(FILES)
    await ground.job.pass_()
    before = ground.copied()
    for change in ("another store", "damaged"):
        if change == "damaged":
            (ground.folder / "copied.jsonl").write_text(json.dumps({"store": "s3://b"}) + '\n["unneeded", 3]\nnonsense')
        ground.new_job(store="s3://c" if change == "another store" else "s3://b")
        await ground.job.pass_()
        storage.later(3 * DAY)
        await ground.job.pass_()
        assert ground.copied() == before


async def test_two_folders(storage: Storage, tmp_path: Path) -> None:
    await storage.chunks.close()
    first, second = LocalDisk(tmp_path / "first"), LocalDisk(tmp_path / "second")
    storage.blobs = first
    storage.build()
    await first.start()
    workspace = await storage.workspace(FILES)
    ground = Ground(tmp_path, storage)
    ground.second = second  # type: ignore[assignment]
    await ground.new_job().pass_()
    ground.heal()
    paths = list((tmp_path / "first" / "objects").rglob("pack_*"))
    copies = [tmp_path / "second" / path.relative_to(tmp_path / "first") for path in paths]
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in paths]
    whole = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(bytes(len(whole[1])))
    paths[2].unlink()
    paths[2].symlink_to("/etc/passwd")
    assert await storage.files(workspace) == FILES
    assert [path.read_bytes() for path in paths] == whole and not paths[2].is_symlink()
    await ground.job.close()
    await first.close()


def _harm(ground: Ground, harm: str) -> None:
    objects = ground.first.objects  # type: ignore[attr-defined]
    for key in list(objects)[::2]:
        if harm == "lost":
            del objects[key]
        elif harm == "cut":
            objects[key] = objects[key][:1_000]
        else:
            ground.first.flip(key, 50)  # type: ignore[attr-defined]


async def _assert_corrupt(ground: Ground, workspace: Workspace) -> None:
    await ground.storage.restart()
    ground.heal()
    with pytest.raises(Corrupt):
        await ground.storage.files(workspace)
