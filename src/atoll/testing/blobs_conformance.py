"""What every store of blobs must do, as tests: subclass `BlobsConformance` and say how a store is opened.

    class TestMine(BlobsConformance):
        @pytest.fixture
        async def blobs(self, tmp_path):
            yield a_started_empty_store

The tests are coroutines: run them with pytest-asyncio (`asyncio_mode = "auto"`). Each holds one sentence of the
contract in `atoll.blobs.base`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from atoll.blobs.base import PIECE_BYTES, Blobs
from atoll.domain.errors import InvalidInput, NotFound

CLOCKS_DIFFER = timedelta(minutes=2)
LARGE_BYTES = 40 * 2**20  # more than any store takes in one part

KEYS = ("a", "a.b", "a-b/c", "A/B/C/D.e_f", "lineages/lin_0/packs/pack_0", f"{'l' * 255}/{'o' * 200}/ng", "..a/...")
NO_KEYS = ("", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "ä", "a b", "a\n", "a\0", "a%2Fb", "a*", "x" * 513)


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


class BlobsConformance:
    """Give `blobs`: a started, empty store that is closed afterwards."""

    @pytest.fixture
    async def blobs(self) -> Blobs:
        raise NotImplementedError("give a fixture `blobs`")

    async def keys(self, blobs: Blobs, prefix: str = "") -> list[str]:
        return sorted([blob.key async for blob in blobs.list(prefix)])

    async def test_what_was_put_is_got_byte_for_byte(self, blobs: Blobs) -> None:
        for number, key in enumerate(KEYS):
            await blobs.put(key, bytes(range(256)) * number)
        for number, key in enumerate(KEYS):
            assert await blobs.get(key) == bytes(range(256)) * number
        assert await self.keys(blobs) == sorted(KEYS)

    async def test_a_key_that_exists_is_replaced(self, blobs: Blobs) -> None:
        await blobs.put("k", b"old and longer")
        await blobs.put("k", b"new")
        assert await blobs.get("k") == b"new"
        await blobs.write("k", stream(b"ne", b"wer"))
        assert await blobs.get("k") == b"newer"
        assert await self.keys(blobs) == ["k"]

    async def test_what_is_no_key_is_refused_everywhere(self, blobs: Blobs) -> None:
        for key in NO_KEYS:
            with pytest.raises(InvalidInput):
                await blobs.put(key, b"x")
            with pytest.raises(InvalidInput):
                await blobs.write(key, stream(b"x"))
            with pytest.raises(InvalidInput):
                await blobs.get(key)
            with pytest.raises(InvalidInput):
                await blobs.get_range(key, 0, 1)
            with pytest.raises(InvalidInput):
                await blobs.delete(key)
            with pytest.raises(InvalidInput):
                await anext(aiter(blobs.read(key)))
        assert await self.keys(blobs) == []

    async def test_what_is_not_there_is_not_found(self, blobs: Blobs) -> None:
        await blobs.put("folder/key", b"x")
        for key in ("none", "folder/none", "folder", "no/such/folder"):
            with pytest.raises(NotFound):
                await blobs.get(key)
            with pytest.raises(NotFound):
                await blobs.get_range(key, 0, 1)
            with pytest.raises(NotFound):
                await blobs.get_range(key, 0, 0)
            with pytest.raises(NotFound):
                await anext(aiter(blobs.read(key)))

    async def test_a_range_is_that_part_of_it(self, blobs: Blobs) -> None:
        data = noise(10_000)
        await blobs.put("k", data)
        for offset, length in ((0, 1), (0, 10_000), (9_999, 1), (1234, 4321), (0, 0), (10_000, 0)):
            assert await blobs.get_range("k", offset, length) == data[offset : offset + length]

    async def test_a_range_of_an_object_that_is_too_short_is_not_found(self, blobs: Blobs) -> None:
        await blobs.put("k", b"0123456789")
        await blobs.put("empty", b"")
        for key, offset, length in (
            ("k", 0, 11),
            ("k", 9, 2),
            ("k", 10, 1),
            ("k", 11, 0),
            ("k", 99, 1),
            ("empty", 0, 1),
        ):
            with pytest.raises(NotFound):
                await blobs.get_range(key, offset, length)

    async def test_a_stream_is_stored_whole_and_its_size_returned(self, blobs: Blobs) -> None:
        assert await blobs.write("none", stream()) == 0
        assert await blobs.write("empty", stream(b"", b"")) == 0
        assert await blobs.write("small", stream(b"a", b"", b"bc")) == 3
        assert await blobs.get("none") == b""
        assert await blobs.get("small") == b"abc"

    async def test_a_large_stream_comes_back_in_pieces(self, blobs: Blobs) -> None:
        pieces = [noise(PIECE_BYTES - 7, seed) for seed in range(LARGE_BYTES // PIECE_BYTES)]
        size = sum(map(len, pieces))
        assert await blobs.write("large", stream(*pieces)) == size
        came, longest, count = hashlib.sha256(), 0, 0
        async for piece in blobs.read("large"):
            came.update(piece)
            longest, count = max(longest, len(piece)), count + len(piece)
        assert count == size
        assert longest <= PIECE_BYTES
        assert came.digest() == hashlib.sha256(b"".join(pieces)).digest()
        assert [(blob.key, blob.bytes) async for blob in blobs.list("")] == [("large", size)]

    async def test_an_empty_object_reads_as_nothing(self, blobs: Blobs) -> None:
        await blobs.put("empty", b"")
        assert [piece async for piece in blobs.read("empty")] == []

    @pytest.mark.parametrize("pieces", [1, LARGE_BYTES // PIECE_BYTES])
    async def test_nothing_of_a_stream_that_fails_is_visible(self, blobs: Blobs, pieces: int) -> None:
        async def broken() -> AsyncIterator[bytes]:
            for _ in range(pieces):
                yield bytes(PIECE_BYTES)
            raise LookupError("the source broke")

        await blobs.put("old", b"old")
        for key in ("old", "new"):
            with pytest.raises(LookupError):
                await blobs.write(key, broken())
        assert await self.keys(blobs) == ["old"]
        assert await blobs.get("old") == b"old"

    @pytest.mark.parametrize("pieces", [1, LARGE_BYTES // PIECE_BYTES])
    async def test_nothing_of_a_cancelled_write_is_visible(self, blobs: Blobs, pieces: int) -> None:
        reached = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(pieces):
                yield bytes(PIECE_BYTES)
            reached.set()
            await asyncio.Event().wait()
            yield b"never"

        writing = asyncio.create_task(blobs.write("k", endless()))
        await reached.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await self.keys(blobs) == []

    async def test_a_cancelled_put_stores_all_or_nothing(self, blobs: Blobs) -> None:
        data = noise(2**20)
        await blobs.put("k", b"old")
        for turns in range(6):
            putting = asyncio.create_task(blobs.put("k", data))
            for _ in range(turns):
                await asyncio.sleep(0)
            putting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await putting
            assert await blobs.get("k") in (b"old", data)

    async def test_a_listing_has_the_keys_that_begin_with_the_prefix(self, blobs: Blobs) -> None:
        for key in ("a/1", "a/2/3", "ab/1", "abc", "b/a/1"):
            await blobs.put(key, b"12345")
        assert await self.keys(blobs) == ["a/1", "a/2/3", "ab/1", "abc", "b/a/1"]
        assert await self.keys(blobs, "a") == ["a/1", "a/2/3", "ab/1", "abc"]
        assert await self.keys(blobs, "ab") == ["ab/1", "abc"]
        assert await self.keys(blobs, "a/") == ["a/1", "a/2/3"]
        assert await self.keys(blobs, "a/2") == ["a/2/3"]
        assert await self.keys(blobs, "none") == []
        with pytest.raises(InvalidInput):
            await self.keys(blobs, "../")

    async def test_a_listing_says_size_and_time(self, blobs: Blobs) -> None:
        await blobs.put("a/b", b"12345")
        [blob] = [blob async for blob in blobs.list("a/")]
        assert (blob.key, blob.bytes) == ("a/b", 5)
        assert abs(blob.modified_at - datetime.now(UTC)) < CLOCKS_DIFFER
        assert blob.modified_at.utcoffset() == timedelta(0)

    async def test_a_listing_is_longer_than_a_page(self, blobs: Blobs) -> None:
        expected = [f"many/{number:04d}" for number in range(1_100)]
        for at in range(0, len(expected), 50):
            await asyncio.gather(*(blobs.put(key, b"") for key in expected[at : at + 50]))
        assert await self.keys(blobs, "many/") == expected
        first = aiter(blobs.list("many/"))
        assert (await anext(first)).key.startswith("many/")

    async def test_what_was_deleted_is_gone_and_a_second_time_is_no_error(self, blobs: Blobs) -> None:
        await blobs.put("a/b/c", b"x")
        await blobs.put("a/d", b"y")
        for key in ("a/b/c", "a/b/c", "a/b", "never/was"):
            await blobs.delete(key)
        assert await self.keys(blobs) == ["a/d"]
        with pytest.raises(NotFound):
            await blobs.get("a/b/c")
        await blobs.put("a/b/c", b"again")
        assert await blobs.get("a/b/c") == b"again"

    async def test_puts_and_deletes_side_by_side_do_not_disturb_each_other(self, blobs: Blobs) -> None:
        async def come_and_go(name: str) -> None:
            for turn in range(15):
                key = f"shared/folder/{name}"
                await blobs.put(key, name.encode() * turn)
                assert await blobs.get(key) == name.encode() * turn
                await blobs.delete(key)

        await asyncio.gather(*(come_and_go(f"w{number}") for number in range(8)))
        assert await self.keys(blobs) == []

    async def test_readers_of_a_key_that_is_replaced_see_one_or_the_other(self, blobs: Blobs) -> None:
        values = [bytes([number]) * 300_000 for number in range(6)]
        await blobs.put("k", values[0])

        async def write() -> None:
            for value in values:
                await blobs.put("k", value)

        writing = asyncio.create_task(write())
        while not writing.done():
            assert await blobs.get("k") in values
        await writing
        assert await blobs.get("k") == values[-1]

    async def test_it_answers_and_closes_twice(self, blobs: Blobs) -> None:
        await blobs.ping()
        await blobs.close()
        await blobs.close()
