"""What the tests of recovery stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.services.recovery.ground import Ground
from tests.services.workspaces.storage import Storage, storage

__all__ = ["ground", "storage"]


@pytest.fixture
async def ground(tmp_path: Path, storage: Storage) -> AsyncIterator[Ground]:
    made = Ground(tmp_path, storage)
    yield made
    await made.job.close()
