"""Every store passes the suite that Atoll ships: a folder, a real SeaweedFS, a GCS emulator, and the one in memory.

Azure has no emulator among the packages that these tests may use: it is tested by construction only (test_opening.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.blobs.base import Blobs
from atoll.blobs.local_disk import LocalDisk
from atoll.testing.blobs_conformance import BlobsConformance
from atoll.testing.memory_blobs import MemoryBlobs


async def started(blobs: Blobs) -> AsyncIterator[Blobs]:
    await blobs.start()
    yield blobs
    await blobs.close()


class TestMemory(BlobsConformance):
    @pytest.fixture
    async def blobs(self) -> AsyncIterator[Blobs]:
        async for blobs in started(MemoryBlobs()):
            yield blobs


class TestLocalDisk(BlobsConformance):
    @pytest.fixture
    async def blobs(self, tmp_path: Path) -> AsyncIterator[Blobs]:
        async for blobs in started(LocalDisk(tmp_path / "blobs")):
            yield blobs
