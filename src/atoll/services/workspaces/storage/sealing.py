"""Sealing: a chunk as it lies in a pack, compressed and encrypted: functions that the chunk store runs in threads.

A sealed chunk is a nonce of 12 bytes and the AES-256-GCM text of a flag byte with the data compressed (zstd) or raw.
The associated data are its lineage and its id, so that no chunk passes for another's, whoever moves objects around.
"""

from __future__ import annotations

import os

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.domain.errors import Corrupt, InvalidInput
from atoll.domain.tree import chunk_id

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
LEVEL = 3
WINDOW_BYTES_MAX = 8 * 2**20
RAW, ZSTD = b"\x00", b"\x01"


def compress(data: bytes | memoryview, compressor: zstandard.ZstdCompressor) -> bytes:
    """A flag byte, then zstd or, where that gains nothing, the data as it is. Compressors are for one thread."""
    packed = compressor.compress(data)
    return ZSTD + packed if len(packed) < len(data) else RAW + data


def decompress(compressed: bytes, size: int) -> bytes:
    """The data of `compress`, that is exactly `size` bytes. Corrupt."""
    flag, body = compressed[:1], compressed[1:]
    if flag == RAW:
        data = body
    elif flag == ZSTD:
        try:
            data = inflate(body, size)
        except InvalidInput as error:
            raise Corrupt(error.message) from None
    else:
        raise Corrupt(f"a chunk is stored in a form that this program does not know: {flag.hex()}")
    if len(data) != size:
        raise Corrupt(f"a chunk has {len(data)} bytes instead of {size}")
    return data


def inflate(frame: bytes, bytes_max: int) -> bytes:
    """What one zstd frame holds; InvalidInput for anything else, or for more than `bytes_max` bytes.

    What the frame says of its own size is looked at before any memory is taken for it.
    """
    try:
        said = zstandard.get_frame_parameters(frame)
        if said.window_size > max(WINDOW_BYTES_MAX, bytes_max):
            raise InvalidInput(f"a zstd frame wants a window of {said.window_size} bytes")
        if said.content_size == zstandard.CONTENTSIZE_UNKNOWN:
            stream = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).stream_reader(frame)
            data = stream.read(bytes_max + 1)
            size = len(data)
        else:
            size = said.content_size
            data = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False) if size <= bytes_max else b""
    except zstandard.ZstdError as error:
        raise InvalidInput(f"not a zstd frame: {error}") from None
    if size > bytes_max:
        raise InvalidInput(f"a zstd frame holds more than {bytes_max} bytes")
    return data


class Sealer:
    """Seals and opens the chunks of one lineage; cheap to make, one thread's at a time."""

    def __init__(self, key: bytes, lineage: str) -> None:
        self._cipher = AESGCM(key)
        self._lineage = lineage
        self._prefix = lineage.encode() + b"\0"

    def seal(self, chunk: bytes, compressed: bytes) -> bytes:
        """The sealed form of what `compress` gave for the chunk of that id; twice gives two texts."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, compressed, self._prefix + chunk)

    def open(self, chunk: bytes, sealed: bytes | memoryview) -> bytes:
        """What was sealed under that id. Corrupt when a byte, the key, the lineage or the id is another."""
        try:
            return self._cipher.decrypt(bytes(sealed[:NONCE_BYTES]), sealed[NONCE_BYTES:], self._prefix + chunk)
        except (InvalidTag, ValueError):
            raise Corrupt(f"chunk {chunk.hex()} of {self._lineage} is not what was stored") from None

    def read(self, chunk: bytes, sealed: bytes | memoryview, size: int) -> bytes:
        """The chunk's data, whole and verified. Corrupt."""
        data = decompress(self.open(chunk, sealed), size)
        if chunk_id(data) != chunk:
            raise Corrupt(f"chunk {chunk.hex()} of {self._lineage} does not have the contents of its id")
        return data
