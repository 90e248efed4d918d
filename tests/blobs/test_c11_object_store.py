"""C11: an object store that refuses, hangs, answers half or late: retries are bounded, nothing half-made is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from atoll.blobs import object_store
from atoll.blobs.base import PIECE_BYTES, Blobs
from atoll.blobs.object_store import PART_BYTES, PARTS_AT_ONCE
from atoll.blobs.opening import StoreAccess, open_blobs
from atoll.domain.errors import InvalidInput, Unavailable
from tests.blobs.faulty_s3 import FaultyS3, faulty_s3

RETRIES = 2
SILENCE_S = 0.3  # where the store hangs
BOUND_S = 4.0


@pytest.fixture
def s3() -> Iterator[FaultyS3]:
    with faulty_s3() as served:
        yield served


def opened(s3: FaultyS3, concurrency: int = 32, timeout_s: float = 10.0) -> Blobs:
    access = StoreAccess(
        s3.address,
        access_key="k",
        secret_key="s",
        timeout_s=timeout_s,
        retries=RETRIES,
        backoff_s=0.02,
        backoff_max_s=0.1,
        concurrency=concurrency,
    )
    return open_blobs("s3://bucket", access)


@pytest.fixture
async def blobs(s3: FaultyS3) -> AsyncIterator[Blobs]:
    store = opened(s3)
    await store.start()
    s3.asked.clear()
    s3.moments.clear()
    yield store
    await store.close()


async def large(parts: float) -> AsyncIterator[bytes]:
    for _ in range(int(parts * PART_BYTES / PIECE_BYTES)):
        yield bytes(PIECE_BYTES)


@pytest.mark.parametrize("kind", [500, 502, 503, 429])
async def test_what_a_retry_mends_is_mended(s3: FaultyS3, blobs: Blobs, kind: int) -> None:
    s3.fail(kind, RETRIES)
    await blobs.put("k", b"value")
    s3.fail(kind, RETRIES)
    assert await blobs.get("k") == b"value"
    s3.fail(kind, RETRIES)
    assert await blobs.get_range("k", 1, 2) == b"al"
    s3.fail(kind, RETRIES)
    assert [blob.key async for blob in blobs.list("")] == ["k"]
    s3.fail(kind, RETRIES)
    await blobs.delete("k")
    assert s3.objects == {}
    assert s3.faults == []


@pytest.mark.parametrize("kind", [500, 503])
async def test_retries_are_bounded_and_the_error_says_what_came(s3: FaultyS3, blobs: Blobs, kind: int) -> None:
    s3.objects["k"] = b"old"
    s3.fail(kind, 100)
    for call in (lambda: blobs.put("k", b"new"), lambda: blobs.get("k"), lambda: blobs.delete("k"), blobs.ping):
        s3.asked.clear()
        with pytest.raises(Unavailable, match=rf"^s3://bucket: the store answers {kind} "):
            await call()
        assert len(s3.asked) == RETRIES + 1
    assert s3.objects == {"k": b"old"}


async def test_a_store_that_hangs_once_is_asked_again(s3: FaultyS3) -> None:
    store = opened(s3, timeout_s=SILENCE_S)
    await store.start()
    s3.fail("hang")
    await store.put("k", b"value")
    s3.fail("hang")
    assert await store.get("k") == b"value"
    s3.fail("hang")
    await store.delete("k")
    assert s3.objects == {}
    await store.close()


async def test_a_store_that_hangs_for_ever_is_unavailable_in_bounded_time(s3: FaultyS3) -> None:
    store = opened(s3, timeout_s=SILENCE_S)
    await store.start()
    s3.fail("hang", 100)
    for call in (lambda: store.put("k", b"new"), lambda: store.delete("k")):
        s3.asked.clear()
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"^s3://bucket: "):
            await call()
        assert len(s3.asked) <= RETRIES + 1
        assert time.monotonic() - began < BOUND_S
    assert s3.objects == {}
    await store.close()


async def test_pauses_between_retries_grow(s3: FaultyS3, blobs: Blobs) -> None:
    s3.fail(503, RETRIES)
    await blobs.put("k", b"")
    pauses = [after - before for before, after in zip(s3.moments, s3.moments[1:], strict=False)]
    assert len(pauses) == RETRIES
    assert min(pauses) >= 0.02


async def test_a_refusal_is_not_tried_again(s3: FaultyS3, blobs: Blobs) -> None:
    s3.fail(403)
    with pytest.raises(Unavailable, match="403 Forbidden"):
        await blobs.put("k", b"")
    assert len(s3.asked) == 1


async def test_a_store_that_is_down_at_the_start_is_unavailable_and_a_refusing_one_is_not(s3: FaultyS3) -> None:
    s3.fail(503, RETRIES + 1)
    with pytest.raises(Unavailable, match="503"):
        await opened(s3).start()
    for status, says in ((301, "region"), (400, "400"), (401, "401"), (403, "403"), (404, "404")):
        s3.fail(status)
        with pytest.raises(InvalidInput, match=says):
            await opened(s3).start()
    nowhere = open_blobs("s3://bucket", StoreAccess("http://127.0.0.1:1", access_key="k", secret_key="s", retries=0))
    with pytest.raises(Unavailable):
        await nowhere.start()


@pytest.mark.parametrize("times", [1, RETRIES])
async def test_an_answer_that_is_cut_off_is_completed(s3: FaultyS3, blobs: Blobs, times: int) -> None:
    data = bytes(range(256)) * 1_000
    await blobs.put("k", data)
    for read in (lambda: blobs.get("k"), lambda: blobs.get_range("k", 0, len(data))):
        s3.fail("cut", times, method="GET")
        assert await read() == data
    s3.fail("cut", times, method="GET")
    assert b"".join([piece async for piece in blobs.read("k")]) == data
    s3.fail("cut", 100, method="GET")
    with pytest.raises(Unavailable):
        await blobs.get("k")


async def test_a_multipart_upload_survives_faults_and_parts_out_of_order(s3: FaultyS3, blobs: Blobs) -> None:
    s3.fail("late", method="PUT", after_s=0.2)  # the second part is there before the first
    s3.fail(503, method="PUT")
    s3.fail(500, method="POST")
    pieces = [bytes([number]) * PIECE_BYTES for number in range(40)]

    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert await blobs.write("k", source()) == 40 * PIECE_BYTES
    assert s3.objects == {"k": b"".join(pieces)}
    assert s3.uploads == {}


async def test_an_upload_that_is_refused_within_a_good_answer_is_not_taken_for_stored(
    s3: FaultyS3, blobs: Blobs
) -> None:
    s3.fail("error", method="POST")
    with pytest.raises(Unavailable):
        await blobs.write("k", large(1.5))
    assert s3.objects == {}


async def test_a_multipart_upload_that_fails_is_taken_back(s3: FaultyS3, blobs: Blobs) -> None:
    s3.objects["k"] = b"old"
    s3.fail(500, 100, method="PUT")
    with pytest.raises(Unavailable, match="500"):
        await blobs.write("k", large(6))
    s3.faults.clear()
    await blobs.close()
    assert s3.uploads == {}
    assert s3.objects == {"k": b"old"}
    assert s3.requests("DELETE") == 1


async def test_a_cancelled_upload_is_taken_back(s3: FaultyS3, blobs: Blobs) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        async for piece in large(3):
            yield piece
        reached.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(blobs.write("k", endless()))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await blobs.close()
    assert s3.uploads == {}
    assert s3.objects == {}


async def test_a_store_that_hangs_in_an_upload_does_not_hold_up_the_end(
    s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "ENDING_S", 0.2)
    store = opened(s3)
    await store.start()
    s3.fail("hang", 100, method="PUT")
    writing = asyncio.create_task(store.write("k", large(3)))
    while s3.requests("PUT") == 0:
        await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < BOUND_S
    assert s3.objects == {}


async def test_a_source_that_breaks_takes_its_upload_back_before_the_error_is_told(s3: FaultyS3, blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in large(3):
            yield piece
        raise LookupError("the source broke")

    with pytest.raises(LookupError):
        await blobs.write("k", broken())
    assert s3.uploads == {}
    assert s3.objects == {}


async def test_a_stream_is_read_no_faster_than_the_store_takes_it(s3: FaultyS3, blobs: Blobs) -> None:
    s3.part_s = 0.05
    ahead_bytes = produced_bytes = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal ahead_bytes, produced_bytes
        async for piece in large(10):
            produced_bytes += len(piece)
            ahead_bytes = max(ahead_bytes, produced_bytes - s3.received_bytes)
            yield piece

    assert await blobs.write("k", source()) == 10 * PART_BYTES
    assert ahead_bytes <= (PARTS_AT_ONCE + 2) * PART_BYTES


async def test_no_more_requests_at_a_time_than_the_setting_says(s3: FaultyS3) -> None:
    store = opened(s3, concurrency=3)
    await store.start()
    s3.fail("late", 12, after_s=0.02)
    await asyncio.gather(*(store.put(f"k{number}", b"") for number in range(12)))
    assert s3.busiest == 3
    await store.close()
