"""The chunk store: what was added is found, once, in few objects, and verified; memory and faults are bounded."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import aclosing
from dataclasses import replace

import pytest
import zstandard

from atoll.domain import crash
from atoll.domain.errors import Corrupt, InvalidInput, NotFound, Unavailable
from atoll.domain.tree import chunk_id
from atoll.services.workspaces.storage.chunk_reader import coalesce
from atoll.services.workspaces.storage.packs import lineage_and_pack, read_index, stored_index
from atoll.services.workspaces.storage.sealing import Sealer
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.testing.memory_blobs import MemoryBlobs

from .storage import KIB, MIB, OWNER, Storage, event, noise


def contents(count: int, size: int = 3 * KIB, seed: int = 0) -> list[bytes]:
    return [noise(seed * 1_000_000 + number, size) for number in range(count)]


async def read(storage: Storage, lineage: str, ids: list[bytes]) -> list[bytes]:
    return [data async for _, data in storage.chunks.fetch(lineage, ids)]


async def test_what_was_added_is_read_in_the_order_asked_for(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    data = [b"", b"small", *contents(100), b"text " * 50_000, bytes(MIB)]
    ids = await storage.put(lineage, *data)
    assert ids == [chunk_id(one) for one in data]
    assert await read(storage, lineage, ids) == data
    assert await read(storage, lineage, ids[::-1]) == data[::-1]
    assert await read(storage, lineage, ids[:3] * 4) == data[:3] * 4
    assert await storage.chunks.get(lineage, ids[5]) == data[5]
    await storage.restart()
    assert await read(storage, lineage, ids) == data


async def test_many_small_chunks_become_few_objects_and_few_reads(storage: Storage) -> None:
    await storage.restart(StorageLimits())
    lineage = (await storage.lineage()).id
    ids = await storage.put(lineage, *contents(2_000, 1_000))
    assert len(storage.packs) == 1
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    blobs.calls.clear()
    assert len(await read(storage, lineage, ids)) == 2_000
    assert blobs.calls["get_range"] <= 2_000 / StorageLimits().run_chunks + 1


async def test_a_chunk_is_stored_once(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    data = contents(30)
    async with storage.chunks.writer(lineage) as writer:
        await writer.add_many(data + data)
        await writer.flush()
        stored = writer.stored_bytes
        await writer.add_many(data)
        await writer.flush()
        assert (writer.stored_bytes, writer.stored_chunks) == (stored, 30)
    async with storage.chunks.writer(lineage) as writer:
        await writer.add_many(data)
    assert writer.stored_bytes == 0
    other = (await storage.lineage()).id
    assert await storage.chunks.missing(other, [chunk_id(one) for one in data]) == [chunk_id(one) for one in data]


async def test_missing_names_each_once_and_in_order(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    known = await storage.put(lineage, *contents(5))
    unknown = [chunk_id(bytes([number])) for number in range(3)]
    asked = [unknown[2], known[0], unknown[0], unknown[2], *known]
    assert await storage.chunks.missing(lineage, asked) == [unknown[2], unknown[0]]
    assert await storage.chunks.missing("lin_unknown", known[:1]) == known[:1]


async def test_flush_makes_durable_and_leaving_on_an_error_does_not(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    with pytest.raises(KeyError):
        async with storage.chunks.writer(lineage) as writer:
            (flushed,) = await writer.add_many([b"flushed"])
            await writer.flush()
            assert await storage.chunks.missing(lineage, [flushed]) == []
            (left,) = await writer.add_many([b"left"])
            raise KeyError
    assert await storage.chunks.missing(lineage, [flushed, left]) == [left]


async def test_compressed_chunks_are_verified_before_they_are_stored(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    data, pack = b"text " * 1_000, zstandard.ZstdCompressor(level=3).compress
    noisy = noise(1, 2_000)
    async with storage.chunks.writer(lineage) as writer:
        await writer.add_compressed(chunk_id(data), len(data), pack(data))
        await writer.add_compressed(chunk_id(noisy), len(noisy), pack(noisy))
    assert await read(storage, lineage, [chunk_id(data), chunk_id(noisy)]) == [data, noisy]
    bad = {
        "another id": (chunk_id(b"other"), len(data), pack(data)),
        "another size": (chunk_id(b"a" + data), len(data) - 1, pack(b"a" + data)),
        "no frame": (chunk_id(b"b" + data), len(data), b"junk"),
        "a bomb": (chunk_id(bytes(64 * MIB)), MIB, pack(bytes(64 * MIB))),
        "cut": (chunk_id(b"c" + data), len(data) + 1, pack(b"c" + data)[:-2]),
        "too large": (chunk_id(bytes(2 * MIB)), 2 * MIB, pack(bytes(2 * MIB))),
        "empty": (chunk_id(b""), 0, pack(b"")),
    }
    for name, (chunk, size, frame) in bad.items():
        with pytest.raises(InvalidInput, match=chunk.hex()) as caught:
            async with storage.chunks.writer(lineage) as writer:
                await writer.add_compressed(chunk, size, frame)
        assert caught.value.field == "chunks", name
        assert await storage.chunks.missing(lineage, [chunk]) == [chunk], name


async def test_compressed_chunks_come_out_compressed(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    data = [b"text " * 1_000, noise(1, 2_000)]
    ids = await storage.put(lineage, *data)
    unknown = chunk_id(b"unknown")
    found = [item async for item in storage.chunks.fetch_compressed(lineage, [ids[0], unknown, ids[1]])]
    assert [(chunk, size) for chunk, size, _ in found] == [(ids[0], 5_000), (unknown, 0), (ids[1], 2_000)]
    assert [zstandard.decompress(frame) for _, _, frame in found if frame] == data
    assert found[1][2] == b""


async def test_a_chunk_that_is_not_there_is_corrupt(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    unknown = chunk_id(b"unknown")
    with pytest.raises(Corrupt, match=f"{unknown.hex()} of {lineage} is not there"):
        await storage.chunks.get(lineage, unknown)


async def test_f14_each_damage_is_corrupt_and_named(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineage = (await storage.lineage()).id
    chunk, other = await storage.put(lineage, *contents(2))
    (key,) = storage.packs
    whole = blobs.objects[key]
    for at in (0, 13, 1_000, 3_000):
        blobs.flip(key, at)
        with pytest.raises(Corrupt, match=f"{chunk.hex()} of {lineage}"):
            await storage.chunks.get(lineage, chunk)
        assert await storage.chunks.get(lineage, other)
        blobs.objects[key] = whole
    blobs.objects[key] = whole[:2_000]
    with pytest.raises(Corrupt, match=f"pack .* of {lineage} is missing or cut short: chunk {chunk.hex()}"):
        await storage.chunks.get(lineage, chunk)
    del blobs.objects[key]
    with pytest.raises(Corrupt, match="is missing"):
        await storage.chunks.get(lineage, chunk)


async def test_f14_swapped_packs_of_two_lineages_give_nothing_away(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineages = [(await storage.lineage()).id for _ in range(2)]
    chunks = [(await storage.put(lineage, b"the same contents"))[0] for lineage in lineages]
    first, second = storage.packs
    blobs.objects[first], blobs.objects[second] = blobs.objects[second], blobs.objects[first]
    for lineage, chunk in zip(lineages, chunks, strict=True):
        with pytest.raises(Corrupt, match=f"{chunk.hex()} of {lineage}"):
            await storage.chunks.get(lineage, chunk)


async def test_f14_swapped_packs_of_one_lineage_are_corrupt(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineage = (await storage.lineage()).id
    (chunk,) = await storage.put(lineage, b"one!")
    await storage.put(lineage, b"two!")
    first, second = storage.packs
    blobs.objects[first], blobs.objects[second] = blobs.objects[second], blobs.objects[first]
    with pytest.raises(Corrupt, match=chunk.hex()):
        await storage.chunks.get(lineage, chunk)


async def test_a_shredded_lineage_cannot_be_read_or_written(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    (chunk,) = await storage.put(lineage, b"secret")
    await storage.keys.shred(lineage, event("lineage.shredded", lineage))
    await storage.keys.shred(lineage, event("lineage.shredded", lineage))
    with pytest.raises(NotFound, match="destroyed"):
        await storage.chunks.get(lineage, chunk)
    with pytest.raises(NotFound):
        await storage.put(lineage, b"more")
    assert (await storage.records.get_lineage(lineage)).key is None


async def test_a_wrapped_key_of_another_lineage_is_corrupt(storage: Storage) -> None:
    one, two = await storage.lineage(), await storage.keys.new("lin_forged", OWNER)
    await storage.records.add_lineage(replace(two, key=one.key))
    with pytest.raises(Corrupt):
        await storage.keys.key(two.id)


async def test_the_index_of_a_pack_rebuilds_its_records(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    ids = await storage.put(lineage, *contents(10), b"text " * 1_000)
    (key,) = storage.packs
    place = lineage_and_pack(key)
    assert place is not None
    data, sealer = await storage.blobs.get(key), Sealer(await storage.keys.key(lineage), lineage)
    index = read_index(data, place[1], sealer)
    assert {chunk.id: chunk for chunk in index} == await storage.records.find_chunks(lineage, ids)
    assert await stored_index(storage.blobs, lineage, place[1], len(data), sealer) == index
    for bad in (data[:-1], data[:-4], b"", data[:-5] + b"x" + data[-4:], data[:-4] + b"\xff\xff\xff\xff"):
        with pytest.raises(Corrupt):
            read_index(bad, place[1], sealer)
    with pytest.raises(Corrupt):
        read_index(data, "pack_of_another_name", sealer)


async def test_c11_a_store_that_fails_leaves_no_record_and_each_call_says_so(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineage = (await storage.lineage()).id
    data = contents(200)
    for after in (0, 2):  # packs that are stored before it
        blobs.fail_next(1_000, after=after)
        with pytest.raises(Unavailable):
            async with storage.chunks.writer(lineage) as writer:
                await writer.add_many(data)
                await writer.flush()
        blobs.fail_next(0)
        recorded = await storage.records.list_packs(lineage)
        assert len(recorded) == len(storage.packs)
    await storage.put(lineage, *data)
    assert await read(storage, lineage, [chunk_id(one) for one in data]) == data


async def test_after_a_failure_the_writer_takes_nothing_more(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineage = (await storage.lineage()).id
    with pytest.raises(Unavailable):
        async with storage.chunks.writer(lineage) as writer:
            blobs.fail_next(1_000)
            for _ in range(2):
                await writer.add_many([b"x"])
                with pytest.raises(Unavailable):
                    await writer.flush()
            await writer.add_many(contents(500))
    blobs.fail_next(0)


async def test_a_crash_between_object_and_record_loses_nothing_that_was_told(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    (told,) = await storage.put(lineage, b"told")

    def die(name: str) -> None:
        raise RuntimeError(name)

    with crash.armed("workspaces.pack.stored", die), pytest.raises(RuntimeError):
        await storage.put(lineage, b"not told")
    await storage.restart()
    assert len(storage.packs) == 2
    assert await read(storage, lineage, [told]) == [b"told"]
    untold = chunk_id(b"not told")
    assert await storage.chunks.missing(lineage, [told, untold]) == [untold]
    await storage.put(lineage, b"not told")
    assert await read(storage, lineage, [untold]) == [b"not told"]


async def test_adding_waits_while_the_store_hangs_and_ends_when_cancelled(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineage = (await storage.lineage()).id
    taken = 0

    async def write() -> None:
        nonlocal taken
        async with storage.chunks.writer(lineage) as writer:
            for data in contents(1_000):
                await writer.add(chunk_id(data), data)
                taken += len(data)

    blobs.answers.clear()
    before = asyncio.all_tasks()
    writing = asyncio.create_task(write())
    await asyncio.sleep(0.3)
    assert taken < 3 * storage.limits.pack_bytes + 8 * storage.limits.batch_bytes
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert asyncio.all_tasks() == before
    blobs.answers.set()
    assert await storage.records.list_packs(lineage) == []


async def test_a_reader_that_stops_early_leaves_no_task(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    ids = await storage.put(lineage, *contents(200))
    before = asyncio.all_tasks()
    async with aclosing(storage.chunks.fetch(lineage, ids)) as found:
        async for _ in found:
            break
    assert asyncio.all_tasks() == before


async def test_memory_stays_bounded_however_much_goes_through(storage: Storage) -> None:
    limits = StorageLimits(pack_bytes=MIB, batch_bytes=256 * KIB, run_bytes=512 * KIB)
    await storage.restart(limits)
    lineage = (await storage.lineage()).id
    seen = bytearray()
    tracemalloc.start()
    try:
        async with storage.chunks.writer(lineage) as writer:
            for number in range(48):
                data = number.to_bytes(2, "big") * (MIB // 2)  # compresses, so that the blobs stay small
                chunk = chunk_id(data)
                seen += chunk
                await writer.add(chunk, data)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        async for _ in storage.chunks.fetch(lineage, (bytes(seen[at : at + 32]) for at in range(0, len(seen), 32))):
            pass
        assert written < 20 * MIB
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


async def test_neighbours_are_read_at_once(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    ids = await storage.put(lineage, *contents(12, 1_000))
    places = list((await storage.records.find_chunks(lineage, ids)).values())
    assert len(coalesce(places, 0)) == 1
    apart = [place for place in places if place.id != ids[5]]
    assert [len(span.chunks) for span in coalesce(apart, 0)] == [5, 6]
    assert len(coalesce(apart, 2_000)) == 1
