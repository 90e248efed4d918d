"""F11: archives that are small and unpack to more than anybody has are refused at their bounds, and leave nothing."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import zstandard

from atoll.domain.errors import AtollError, InvalidInput, QuotaExceeded, TooLarge
from atoll.services.workspaces.archives.tar_members import END
from tests.services.conftest import ALICE

from .workshop import LIMITS, Workshop

KIB, MIB, GIB = 2**10, 2**20, 2**30
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK_BYTES = 128 * KIB  # that four bytes of a bomb unpack to


def header(name: str, holds: int = 0, **pax: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = holds, pax
    return info.tobuf(tarfile.PAX_FORMAT)


def archive(contents: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return zstandard.compress(out.getvalue())


def frame_of(head: bytes, zeros: int, *, window_log: int = 21) -> bytes:
    """A zstd frame made by hand: `head` as it is, then so many blocks of zeros, of 4 bytes each."""
    blocks = [struct.pack("<I", len(head) << 3)[:3] + head]
    blocks += [struct.pack("<I", BLOCK_BYTES << 3 | 1 << 1)[:3] + b"\0"] * zeros
    return ZSTD_MAGIC + bytes((0, (window_log - 10) << 3)) + b"".join(blocks) + b"\1\0\0"


class Counted:
    """An archive as it is sent, and how much of it was taken."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.bytes += len(piece)
            yield piece


def whole(data: bytes) -> Counted:
    return Counted(data[at : at + 16 * KIB] for at in range(0, len(data), 16 * KIB))


async def refused(shop: Workshop, sent: Counted) -> AtollError:
    """What it is refused with, when nothing of it is left."""
    before = await shop.files("w")
    with pytest.raises(AtollError) as caught:
        await shop.workspaces.archives.import_archive(ALICE, "w", sent)
    assert await shop.files("w") == before == {b"kept": b"kept"}
    assert len(await shop.log()) == 2
    assert await shop.runtime.list_trees() == []
    return caught.value


@pytest.fixture
async def small(shop: Workshop) -> Workshop:
    """A workspace with a file in it, and bounds on imports below its quota."""
    shop.limits = replace(LIMITS, import_bytes=8 * MIB, import_entries=500)
    await shop.restart()
    created = await shop.create()
    await shop.push("w", created.head.revision.id, {b"kept": b"kept"})
    return shop


async def test_ten_million_entries(small: Workshop) -> None:
    def pieces() -> Iterator[bytes]:
        frame = zstandard.ZstdCompressor().compressobj()
        for _ in range(1_000):  # five gigabytes of headers, less than a megabyte sent
            yield frame.compress(header("f") * 10_000) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        yield frame.compress(END) + frame.flush()

    sent = Counted(pieces())
    assert isinstance(await refused(small, sent), TooLarge)
    assert sent.bytes < 64 * KIB, "it went on long after the bound"


async def test_a_few_hundred_kilobytes_of_ten_gigabytes(small: Workshop) -> None:
    blocks = 10 * GIB // BLOCK_BYTES
    honest = whole(frame_of(header("f", 10 * GIB), blocks))
    assert isinstance(await refused(small, honest), TooLarge)
    many = whole(frame_of(header("f", 7 * MIB), blocks))  # within its bounds, and then ever more
    assert isinstance(await refused(small, many), (InvalidInput, TooLarge))
    behind = whole(frame_of(header("f") + END, blocks))
    assert isinstance(await refused(small, behind), (InvalidInput, TooLarge))
    assert max(honest.bytes, many.bytes, behind.bytes) < 64 * KIB


@pytest.mark.parametrize("window_log", [24, 31, 41])
async def test_a_window_that_is_too_large(small: Workshop, window_log: int) -> None:
    error = await refused(small, whole(frame_of(header("f") + END, 0, window_log=window_log)))
    assert isinstance(error, InvalidInput)


@pytest.mark.parametrize(
    "data",
    [
        header("f", 64 * KIB) + b"x" * KIB + END,
        header("f", 1) + b"x" * 2 * KIB + END,
        header("f", 0, size=str(10 * GIB)) + END,
        header("f", 0, size="-1") + END,
        header("f", 512, size="1_000_000_000_000_000_000_000") + bytes(512) + END,
        header("f", 1, **{"GNU.sparse.size": "1", "GNU.sparse.map": "0,1000"}) + b"x".ljust(512, b"\0") + END,
        header("f", 1, **{"GNU.sparse.size": str(2**62), "GNU.sparse.map": "0,1"}) + b"x".ljust(512, b"\0") + END,
        header("f", 1, **{"GNU.sparse.size": "-5", "GNU.sparse.map": "0,1"}) + b"x".ljust(512, b"\0") + END,
    ],
    ids=[
        "more than it holds",
        "less than it holds",
        "pax more",
        "pax negative",
        "pax huge",
        "map beyond its size",
        "sparse beyond all",
        "sparse negative",
    ],
)
async def test_lying_sizes(small: Workshop, data: bytes) -> None:
    assert isinstance(await refused(small, whole(zstandard.compress(data))), (InvalidInput, TooLarge))


async def test_a_frame_that_lies_about_its_size(small: Workshop) -> None:
    data = zstandard.compress(archive({"f": b"x"}))
    for size in (1, 2**40):
        lying = ZSTD_MAGIC + bytes((0xC0, (21 - 10) << 3)) + struct.pack("<Q", size) + b"\1\0\0"
        assert isinstance(await refused(small, whole(lying)), InvalidInput)
    assert isinstance(await refused(small, whole(data)), InvalidInput)  # an archive in an archive is none


async def test_an_archive_within_an_archive_stays_a_file(small: Workshop) -> None:
    bomb = zstandard.compress(bytes(64 * MIB))
    inner = archive({"deep": b"deep", "bomb.zst": bomb})
    await small.workspaces.archives.import_archive(ALICE, "w", whole(archive({"inner.tar.zst": inner})))
    assert await small.files("w") == {b"inner.tar.zst": inner}


async def test_a_quota_is_a_bound_too(shop: Workshop) -> None:
    created = await shop.create(quota_bytes=2 * MIB, quota_inodes=256)
    await shop.push("w", created.head.revision.id, {b"kept": b"kept"})
    blocks = 10 * GIB // BLOCK_BYTES
    assert isinstance(await refused(shop, whole(frame_of(header("f", 10 * GIB), blocks))), QuotaExceeded)
