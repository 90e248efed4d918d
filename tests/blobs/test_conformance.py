"""Every store passes the suite that Atoll ships: a folder, a real SeaweedFS, a GCS emulator, and the one in memory.

Azure has no emulator among the packages that these tests may use: it is tested by construction only (test_opening.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.blobs.base import Blobs
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.testing.blobs_conformance import BlobsConformance
from atoll.testing.memory_blobs import MemoryBlobs
from tests.blobs.servers import ObjectServer, make_gcs_bucket, make_s3_bucket, s3_access


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
        async for blobs in started(open_blobs((tmp_path / "blobs").as_uri())):
            yield blobs


class TestSeaweed(BlobsConformance):
    """Below a prefix, beside objects of somebody else's, as in a bucket that is shared."""

    @pytest.fixture
    async def blobs(self, seaweed: ObjectServer) -> AsyncIterator[Blobs]:
        bucket = make_s3_bucket(seaweed)
        other = open_blobs(f"s3://{bucket}/some/prefix2", s3_access(seaweed))
        await other.start()
        await other.put("neighbour", b"is not seen")
        await other.close()
        async for blobs in started(open_blobs(f"s3://{bucket}/some/prefix", s3_access(seaweed))):
            yield blobs


class TestGoogle(BlobsConformance):
    @pytest.fixture
    async def blobs(self, fake_gcs: ObjectServer) -> AsyncIterator[Blobs]:
        access = StoreAccess(fake_gcs.address, retries=2, backoff_s=0.05)
        async for blobs in started(open_blobs(f"gs://{make_gcs_bucket(fake_gcs)}/some/prefix", access)):
            yield blobs
