"""Entries on the wire: they come back as they went, and whatever is not entries is refused by name (F08, F11, F12)."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable

import pytest
import zstandard

from atoll.domain.errors import AtollError, InvalidInput, TooLarge
from atoll.domain.tree import Entry, EntryKind, encode_entry
from atoll.surfaces.workspaces import entries
from atoll.surfaces.workspaces.entries import read_entries, write_entries

CHANGES: list[Entry | bytes] = [
    Entry(b"", EntryKind.DIRECTORY, 0o755, 1),
    Entry(b"a,b", EntryKind.SYMLINK, 0, 2, target=b"x,y"),
    b"gone, too",
    Entry(b"name\xff", EntryKind.FILE, 0o644, 3, size=5, chunks=b"c" * 32, xattrs=((b"user.a", b"\0\xff"),)),
    b"zzz\xfe",
]


async def pieces(body: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def each(values: Iterable[Entry | bytes]) -> AsyncIterator[Entry | bytes]:
    for value in values:
        yield value


async def written(changes: Iterable[Entry | bytes]) -> bytes:
    return b"".join([piece async for piece in write_entries(each(changes))])


async def read(body: bytes, size: int = 65_536) -> list[Entry | bytes]:
    return [change async for change in read_entries(pieces(body, size))]


def packed(text: bytes) -> bytes:
    return zstandard.compress(text, 3)


def line(path: str, kind: str = "d") -> bytes:
    return json.dumps([path, kind, 0o755, 0]).encode() + b"\n"


@pytest.mark.parametrize("size", [1, 100, 65_536])
async def test_changes_come_back_as_they_went(size: int) -> None:
    assert await read(await written(CHANGES), size) == CHANGES


async def test_many_come_back_too() -> None:
    many = [Entry(b"%08d" % n, EntryKind.FILE, 0o600, n, size=1, chunks=b"c" * 32) for n in range(10_000)]
    assert await read(await written(many)) == many


async def test_no_changes_are_a_body_too() -> None:
    assert await read(await written([])) == []


async def test_the_last_line_needs_no_end() -> None:
    assert await read(packed(encode_entry(CHANGES[0]))) == CHANGES[:1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n", "not an entry"),
        (b"nonsense\n", "not an entry"),
        (b"{}\n", "not an entry"),
        (b'["a"', "not an entry"),
        (b"[1]\n", "not an entry"),
        (b'["a","d"]\n', "not an entry"),
        (b'["a","x",1,1]\n', "not an entry"),
        (b'["a","d",70000,1]\n', "not an entry"),
        (b'["a","d",1,1,0,0,0,"!"]\n', "not an entry"),
        (b"[" * 100_000 + b"\n", "not an entry"),
        (b'["a","d",1,' + b"9" * 6000 + b"]\n", "not an entry"),
        (line("../etc/passwd"), "'..'"),
        (line("a/../b"), "'..'"),
        (line("./a"), "'.'"),
        (line("/etc/passwd"), "relative"),
        (line("a//b"), "empty parts"),
        (line("a/"), "empty parts"),
        (line("a\0b"), "NUL"),
        (line("x" * 256), "255"),
        (line("/".join(["x" * 200] * 21)), "4096"),
        (line("/".join(["x"] * 257)), "256"),
        (b'["../gone"]\n', "'..'"),
        (b'["/gone"]\n', "relative"),
        (b'[""]\n', "root"),
        (line("b") + line("a"), "sorted"),
        (line("a") + line("a"), "each once"),
        (line("a") + b'["a"]\n', "each once"),
    ],
)
async def test_a_line_that_is_wrong_is_refused_and_says_why(text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await read(packed(text))
    assert message in refused.value.message
    refused.value.message.encode()  # and can be answered


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain text",
        packed(line("a"))[:-3],
        packed(line("a")) + b"more",
        packed(line("a")) + packed(line("b")),
        b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
    ],
    ids=["nothing", "not zstd", "cut", "appended", "two frames", "damaged"],
)
async def test_a_body_that_is_not_one_zstd_frame_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        await read(body)


async def test_a_bit_flipped_anywhere_is_refused_or_harmless() -> None:
    body = bytearray(await written(CHANGES))
    for at in range(len(body)):
        body[at] ^= 0x10
        try:
            await read(bytes(body))
        except AtollError as refused:
            refused.message.encode()
        body[at] ^= 0x10


@pytest.mark.parametrize("text", [b"x", b"\n", line("a")], ids=["line", "lines", "same"])
async def test_a_bomb_costs_no_more_than_a_line(text: bytes) -> None:
    body = packed(text * (2**28 // len(text)))
    assert len(body) < 2**16
    tracemalloc.start()
    try:
        with pytest.raises(AtollError):
            await read(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 200 * 2**20


async def test_a_window_larger_than_ours_is_refused() -> None:
    huge = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=0)
    body = zstandard.ZstdCompressor(compression_params=huge).compressobj()
    with pytest.raises(InvalidInput, match="zstd"):
        await read(body.compress(line("a") * 100_000) + body.flush())


async def test_the_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = packed(b"".join(line(f"{n:04}") for n in range(100)))
    monkeypatch.setattr(entries, "LINES_MAX", 99)
    with pytest.raises(TooLarge, match="more than 99"):
        await read(body)
    monkeypatch.setattr(entries, "LINES_BYTES_MAX", 100)
    with pytest.raises(TooLarge, match="100 bytes"):
        await read(body)
