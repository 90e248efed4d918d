"""What the tests of recovery stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from tests.services.recovery.ground import Ground
from tests.services.workspaces.storage import Storage


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    records = SqlRecords(Sqlite(tmp_path / "atoll.db"))
    await records.start()
    made = Storage(records)
    await made.blobs.start()
    await made.vault.start()
    yield made
    await made.chunks.close()
    await records.close()


@pytest.fixture
async def ground(tmp_path: Path, storage: Storage) -> AsyncIterator[Ground]:
    made = Ground(tmp_path, storage)
    yield made
    await made.job.close()
