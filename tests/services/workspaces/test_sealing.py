"""Sealed chunks: what comes back is what went in, or Corrupt; frames from outside are bounded."""

from __future__ import annotations

import struct

import pytest
import zstandard

from atoll.domain.errors import Corrupt, InvalidInput
from atoll.domain.tree import chunk_id
from atoll.services.workspaces.storage.sealing import RAW, ZSTD, Sealer, compress, decompress, inflate

from .storage import MIB, noise

KEY, OTHER_KEY = bytes(32), bytes(31) + b"\1"
COMPRESSOR = zstandard.ZstdCompressor(level=3)


@pytest.mark.parametrize("data", [b"", b"x", b"text " * 10_000, noise(1, 100_000), bytes(MIB)])
def test_what_comes_back_is_what_went_in(data: bytes) -> None:
    chunk, sealer = chunk_id(data), Sealer(KEY, "lin_a")
    compressed = compress(data, COMPRESSOR)
    assert len(compressed) <= len(data) + 1
    sealed = sealer.seal(chunk, compressed)
    assert sealed != sealer.seal(chunk, compressed)
    assert sealer.read(chunk, sealed, len(data)) == data


def test_each_flipped_byte_is_found() -> None:
    data = b"some text, some text"
    chunk, sealer = chunk_id(data), Sealer(KEY, "lin_a")
    sealed = sealer.seal(chunk, compress(data, COMPRESSOR))
    for at in range(len(sealed)):
        bad = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Corrupt, match=f"{chunk.hex()} of lin_a"):
            sealer.read(chunk, bad, len(data))
    for end in range(len(sealed)):
        with pytest.raises(Corrupt):
            sealer.read(chunk, sealed[:end], len(data))


@pytest.mark.parametrize(
    ("key", "lineage", "data"), [(OTHER_KEY, "lin_a", b"x"), (KEY, "lin_b", b"x"), (KEY, "lin_a", b"y")]
)
def test_another_key_lineage_or_id_is_corrupt(key: bytes, lineage: str, data: bytes) -> None:
    sealed = Sealer(KEY, "lin_a").seal(chunk_id(b"x"), RAW + b"x")
    with pytest.raises(Corrupt):
        Sealer(key, lineage).read(chunk_id(data), sealed, 1)


def test_contents_of_another_id_are_corrupt_though_the_tag_is_right() -> None:
    sealer = Sealer(KEY, "lin_a")
    with pytest.raises(Corrupt, match="contents of its id"):
        sealer.read(chunk_id(b"x"), sealer.seal(chunk_id(b"x"), RAW + b"y"), 1)


@pytest.mark.parametrize("stored", [b"", b"\x07data", ZSTD + b"no zstd", RAW + b"too long", RAW])
def test_a_form_that_is_unknown_or_of_another_size_is_corrupt(stored: bytes) -> None:
    with pytest.raises(Corrupt):
        decompress(stored, 4)


def test_a_frame_is_opened_within_bounds() -> None:
    frame = COMPRESSOR.compress(bytes(100))
    assert inflate(frame, 100) == bytes(100)
    for bad in (frame[:-1], frame + b"\0", b"", b"junk of some length", frame + frame):
        with pytest.raises(InvalidInput):
            inflate(bad, 100)
    with pytest.raises(InvalidInput, match="more than 99"):
        inflate(frame, 99)


def test_a_frame_that_says_nothing_of_its_size_is_bounded_too() -> None:
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    frame = stream.compress(bytes(50 * MIB)) + stream.flush()
    with pytest.raises(InvalidInput, match="more than"):
        inflate(frame, MIB)


def test_a_frame_that_lies_about_its_size_takes_no_memory() -> None:
    frame = bytearray(zstandard.ZstdCompressor(write_checksum=False).compress(bytes(300)))
    magic, descriptor = frame[:4], frame[4]
    assert descriptor >> 6 == 1  # a size of two bytes follows
    lying = bytes(magic) + bytes([descriptor | 0xC0]) + struct.pack("<Q", 2**60) + bytes(frame[7:])
    with pytest.raises(InvalidInput, match="window"):
        inflate(lying, MIB)


def test_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = stream.compress(noise(1, 1000)) + stream.flush()
    with pytest.raises(InvalidInput, match="window"):
        inflate(frame, MIB)
