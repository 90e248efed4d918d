"""The second store in a real object store: everything gets there, heals the first, and restores an empty machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.blobs.base import Blobs
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from atoll.services.recovery.backup import Backup
from atoll.testing.memory_blobs import MemoryBlobs
from tests.blobs.servers import ObjectServer, make_gcs_bucket, make_s3_bucket, s3_access
from tests.services.recovery.ground import FILES, LIMITS, Ground
from tests.services.workspaces.storage import DAY, Storage


@pytest.fixture(params=["s3", "gcs"])
async def second(request: pytest.FixtureRequest) -> AsyncIterator[Blobs]:
    if request.param == "s3":
        seaweed: ObjectServer = request.getfixturevalue("seaweed")
        store = open_blobs(f"s3://{make_s3_bucket(seaweed)}/copy", s3_access(seaweed))
    else:
        fake_gcs: ObjectServer = request.getfixturevalue("fake_gcs")
        store = open_blobs(
            f"gs://{make_gcs_bucket(fake_gcs)}/copy", StoreAccess(fake_gcs.address, retries=2, backoff_s=0.05)
        )
    await store.start()
    yield store
    await store.close()


async def copied(second: Blobs) -> dict[str, bytes]:
    return {one.key: await second.get(one.key) async for one in second.list("lineages/")}


async def test_what_is_written_and_deleted_here_is_there_too(storage: Storage, second: Blobs, tmp_path: Path) -> None:
    ground = Ground(tmp_path, storage, second)
    workspace, gone = await storage.workspace(FILES), await storage.workspace({b"f": b"gone" * 999}, "gone")
    await ground.job.pass_()
    assert await copied(second) == ground.first.objects  # type: ignore[attr-defined]
    await storage.destroy(gone)
    await ground.job.pass_()
    storage.later(2 * DAY)
    await ground.new_job().pass_()
    assert await copied(second) == ground.first.objects  # type: ignore[attr-defined]
    assert ground.job.lag.error is None
    assert await storage.files(workspace) == FILES
    await ground.job.close()


async def test_what_is_lost_here_comes_back_from_there(storage: Storage, second: Blobs, tmp_path: Path) -> None:
    ground = Ground(tmp_path, storage, second)
    workspace = await storage.workspace(FILES)
    ground.new_job(replace(LIMITS, backup_every_s=DAY.total_seconds(), backups_kept=2))
    await ground.job.pass_()
    whole = dict(ground.first.objects)  # type: ignore[attr-defined]
    ground.first.objects.clear()  # type: ignore[attr-defined]
    storage.chunks.healer = ground.new_healer()
    assert await storage.files(workspace) == FILES
    assert (await storage.verifier.verify(workspace)).corrupt == []
    assert ground.first.objects == whole  # type: ignore[attr-defined]

    empty = MemoryBlobs()
    await empty.start()
    backup = Backup(empty, second, storage.vault)
    moment, owner_key = await backup.restore_records(None, tmp_path / "restored.db")
    assert owner_key == "the owner's key"
    await backup.restore_blobs(moment)
    records = SqlRecords(Sqlite(tmp_path / "restored.db"))
    await records.start()
    again = Storage(records, empty, vault=storage.vault)
    assert await again.files(workspace) == FILES
    await again.chunks.close()
    await records.close()
    await ground.job.close()
