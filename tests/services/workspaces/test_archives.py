"""Archives: what goes out is what ordinary tar programs read, in full; what comes in is bounded."""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import zstandard

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE, hole_run
from atoll.domain.errors import Corrupt, InvalidInput, TooLarge
from atoll.domain.tree import FILE_BYTES_MAX, Entry, EntryKind, chunk_id
from atoll.services.workspaces.archives.tree_archives import TreeArchives
from atoll.services.workspaces.storage.zstd_stream import compressed, decompressed
from atoll.testing.memory_blobs import MemoryBlobs

from .storage import KIB, MIB, ROOT, Storage, file, noise

F, D = EntryKind.FILE, EntryKind.DIRECTORY
MOMENT = 1_700_000_000_123_456_789
LONG = b"long/" + b"n" * 200


async def some_tree(storage: Storage, lineage: str) -> list[Entry]:
    """Some of everything that a tree can hold."""
    hole = 3 * CHUNK_BYTES
    async with storage.chunks.writer(lineage) as writer:
        first = b"begin" + bytes(CHUNK_BYTES - 5)
        last = b"end"
        await writer.add(chunk_id(first), first)
        await writer.add(chunk_id(last), last)
        chunks = chunk_id(first) + HOLE * 2 + chunk_id(last)
        entries = [
            ROOT._replace(mtime_ns=MOMENT, mode=0o750),
            await file(writer, b"a", b"contents"),
            Entry(b"b", EntryKind.HARDLINK, 0, target=b"a"),
            Entry(b"dir", D, 0o1777, MOMENT),
            (await file(writer, b"dir/old", b"x" * 700))._replace(mtime_ns=-1_500_000_000, mode=0o4711),
            Entry(b"empty", D, 0o700, 5),
            Entry(b"fifo", EntryKind.FIFO, 0o600, MOMENT),
            await file(writer, b"large", noise(1, 2 * MIB + 5)),
            Entry(b"long", D, 0o755, MOMENT),
            await file(writer, LONG, b"long name"),
            (await file(writer, b"raw\xff\xfe", b"raw"))._replace(
                xattrs=((b"user.\xc3\xa4", b"\0\xff\n="), (b"user.b", b""))
            ),
            Entry(b"sparse", F, 0o644, MOMENT, size=hole + 3, chunks=chunks, holes=((4 * KIB, hole - 4 * KIB),)),
            Entry(b"tail", F, 0o644, 0, size=CHUNK_BYTES, chunks=HOLE, holes=((0, CHUNK_BYTES),)),
            Entry(b"to", EntryKind.SYMLINK, 0, MOMENT, target=b"/nowhere/\xff" + b"t" * 150),
            Entry("\u00e4".encode(), F, 0o644, 10**9),
        ]
    return sorted(entries)


async def exported(storage: Storage, entries: list[Entry], lineage: str, root: bytes = b"") -> bytes:
    async with storage.chunks.writer(lineage) as writer:
        tree, _ = await storage.manifests.store(writer, entries)
    archives = TreeArchives(storage.chunks, storage.manifests)
    return b"".join([piece async for piece in archives.export(lineage, tree, root)])


def unzipped(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(data).read()


async def test_holes_that_only_the_chunks_tell_of_are_holes_in_the_archive(storage: Storage) -> None:
    chunk = noise(1, MIB)
    run = FILE_BYTES_MAX // CHUNK_BYTES - 1
    async with storage.chunks.writer(lineage := (await storage.lineage()).id) as writer:
        await writer.add(chunk_id(chunk), chunk)
    size = (run + 1) * CHUNK_BYTES
    between = Entry(b"between", F, size=3 * MIB, chunks=chunk_id(chunk) + HOLE + chunk_id(chunk), holes=((0, 4 * KIB),))
    huge = Entry(b"huge", F, size=size, chunks=hole_run(run) + chunk_id(chunk))
    async with asyncio.timeout(10):
        data = unzipped(await exported(storage, [ROOT, between, huge], lineage))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.getmember("huge")
        assert (member.issparse(), member.size) == (True, size)
        taken = archive.extractfile(member)
        assert taken is not None
        taken.seek(size - MIB)
        assert taken.read() == chunk
        taken = archive.extractfile("between")
        assert taken is not None and taken.read() == bytes(4 * KIB) + chunk[4 * KIB :] + bytes(MIB) + chunk


async def contents(storage: Storage, lineage: str, entry: Entry) -> bytes:
    parts = [bytes(length) if id == HOLE else await storage.chunks.get(lineage, id) for id, _, length in entry.pieces()]
    return b"".join(parts)


def raw(name: str) -> bytes:
    return os.fsencode(name)


async def test_f13_each_field_of_each_entry_is_in_the_archive(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    entries = await some_tree(storage, lineage)
    with tarfile.open(fileobj=io.BytesIO(unzipped(await exported(storage, entries, lineage)))) as archive:
        members = archive.getmembers()
        assert len(members) == len(entries)
        for entry, member in zip(entries, members, strict=True):
            name = raw(member.name)
            assert name == (entry.path or b".")
            if entry.kind is EntryKind.HARDLINK:
                assert (member.type, raw(member.linkname)) == (tarfile.LNKTYPE, entry.target)
                continue
            text = member.pax_headers.get("mtime", str(int(member.mtime)))
            assert _nanoseconds(text) == entry.mtime_ns, name
            if entry.kind is EntryKind.SYMLINK:
                assert (member.type, raw(member.linkname)) == (tarfile.SYMTYPE, entry.target)
                continue
            assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
            assert member.isreg() == (entry.kind is F) and member.isdir() == (entry.kind is D)
            xattrs = {key[13:]: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
            assert {(raw(key), raw(value)) for key, value in xattrs.items()} == set(entry.xattrs)
            if entry.kind is F:
                assert member.issparse() == bool(entry.holes)
                taken = archive.extractfile(member)
                assert taken is not None and taken.read() == await contents(storage, lineage, entry), name


def _nanoseconds(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    whole, _, part = text.lstrip("-").partition(".")
    return sign * (int(whole) * 10**9 + int(part.ljust(9, "0") or 0))


async def test_f13_gnu_tar_unpacks_it_as_it_was(storage: Storage, tmp_path: Path) -> None:
    lineage = (await storage.lineage()).id
    entries = [entry for entry in await some_tree(storage, lineage) if not entry.xattrs or os.geteuid() == 0]
    archive = unzipped(await exported(storage, entries, lineage, b"alice"))
    whole = {entry.path: await contents(storage, lineage, entry) for entry in entries if entry.kind is F}
    await asyncio.to_thread(_unpacked_is, archive, entries, whole, tmp_path)


def _unpacked_is(archive: bytes, entries: list[Entry], contents: dict[bytes, bytes], folder: Path) -> None:
    (folder / "a.tar").write_bytes(archive)
    target = folder / "out"
    target.mkdir()
    run = subprocess.run(["tar", "-C", target, "-xpf", folder / "a.tar"], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert os.listdir(target) == ["alice"]
    top = os.fsencode(target / "alice")
    for entry in entries:
        path = top + b"/" + entry.path if entry.path else top
        found = os.lstat(path)
        if entry.kind is EntryKind.HARDLINK:
            assert found.st_ino == os.lstat(top + b"/" + entry.target).st_ino
            continue
        assert found.st_mtime_ns == entry.mtime_ns, entry.path
        if entry.kind is EntryKind.SYMLINK:
            assert os.readlink(path) == entry.target
            continue
        assert found.st_mode & 0o7777 == entry.mode
        if entry.kind is F:
            assert Path(os.fsdecode(path)).read_bytes() == contents[entry.path]
        if entry.holes:
            assert found.st_blocks * 512 < entry.size / 2
    subprocess.run(["chmod", "-R", "u+rwx", target], check=True)
    shutil.rmtree(target)


async def test_a_file_beyond_what_old_headers_can_say(storage: Storage) -> None:
    lineage = (await storage.lineage()).id
    chunks = 9 * KIB
    size = chunks * CHUNK_BYTES
    entry = Entry(b"huge", F, size=size, chunks=HOLE * chunks, holes=((0, size),))
    with tarfile.open(fileobj=io.BytesIO(unzipped(await exported(storage, [ROOT, entry], lineage)))) as archive:
        assert archive.getmember("huge").size == size


async def test_f14_a_damaged_revision_ends_the_archive_with_an_error(storage: Storage) -> None:
    blobs = storage.blobs
    assert isinstance(blobs, MemoryBlobs)
    lineage = (await storage.lineage()).id
    entries = [ROOT, *(await storage.tree(lineage, {b"a": noise(1, 5 * KIB)}))[1:]]
    (key,) = storage.packs
    blobs.flip(key, 100)
    with pytest.raises(Corrupt):
        await exported(storage, entries, lineage)


async def pieces_of(data: bytes, size: int = 64 * KIB) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def opened(storage: Storage, data: bytes, bytes_max: int = 64 * MIB, size: int = 64 * KIB) -> bytes:
    found = decompressed(pieces_of(data, size), storage.chunks.in_thread, bytes_max)
    return b"".join([piece async for piece in found])


async def test_streams_come_back_in_any_pieces_and_frames(storage: Storage) -> None:
    data = noise(1, MIB) + b"text " * 500_000 + bytes(MIB)
    packed = b"".join([piece async for piece in compressed(pieces_of(data, 7_001), storage.chunks.in_thread)])
    assert unzipped(packed) == data
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    several = packed + skippable + zstandard.compress(b"") + zstandard.compress(b"more")
    for size in (100_000, 4_097):
        assert await opened(storage, packed, size=size) == data
        assert await opened(storage, several, size=size) == data + b"more"
    assert await opened(storage, zstandard.compress(b"small"), size=1) == b"small"
    empty = b"".join([piece async for piece in compressed(each([]), storage.chunks.in_thread)])
    assert await opened(storage, empty) == b""


async def test_f12_malformed_streams_are_refused(storage: Storage) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(noise(1, 300_000) + b"text " * 1_000)
    chance = random.Random(3)
    bad = [b"", b"\x28\xb5", b"junk, no frame at all", packed + b"junk", packed + b"\0", b"\x1f\x8b" + packed[2:]]
    bad += [packed[: chance.randrange(1, len(packed))] for _ in range(20)]
    for _ in range(20):
        flipped = bytearray(packed)
        flipped[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
        bad.append(bytes(flipped))
    for data in bad:
        with pytest.raises((InvalidInput, TooLarge)):
            await opened(storage, data)


async def test_f11_a_bomb_stops_at_its_bound_in_time_and_memory(storage: Storage) -> None:
    frame = zstandard.ZstdCompressor().compressobj()
    bomb = b"".join(frame.compress(bytes(16 * MIB)) for _ in range(16)) + frame.flush()
    nested = zstandard.compress(zstandard.compress(bytes(64 * MIB)))
    begun = time.monotonic()
    got = 0
    with pytest.raises(TooLarge, match=str(100 * MIB)):
        async for piece in decompressed(pieces_of(bomb), storage.chunks.in_thread, 100 * MIB):
            got += len(piece)
            assert len(piece) <= 20 * MIB
    assert got <= 100 * MIB
    assert len(await opened(storage, nested)) < 10 * KIB
    assert time.monotonic() - begun < 10


async def test_f11_a_huge_window_is_refused(storage: Storage) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InvalidInput, match="zstd"):
        await opened(storage, frame.compress(noise(1, 1_000)) + frame.flush())
