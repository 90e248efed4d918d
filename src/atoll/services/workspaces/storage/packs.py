"""Packs: many sealed chunks of one lineage in one stored object, with a sealed index at its end.

A pack object is its sealed chunks one after the other, the sealed index (compressed JSON: `[[id, offset, stored bytes,
bytes], ...]`) and the index's length as a big-endian u32: so the records of chunks can be rebuilt from blobs alone.
"""

from __future__ import annotations

import hashlib
import json
import struct

import zstandard

from atoll.blobs.base import Blobs
from atoll.domain.errors import Corrupt, NotFound
from atoll.domain.ids import new_id
from atoll.domain.tree import ID_BYTES
from atoll.domain.workspace import StoredChunk
from atoll.services.workspaces.storage.sealing import LEVEL, NONCE_BYTES, TAG_BYTES, Sealer, compress, decompress

PREFIX = "lineages/"
INDEX_BYTES_MAX = 64 * 2**20
_LENGTH = struct.Struct(">I")


def pack_key(lineage: str, pack: str) -> str:
    """The key of a pack's object."""
    return f"{PREFIX}{lineage}/packs/{pack}"


def lineage_and_pack(key: str) -> tuple[str, str] | None:
    """(lineage, pack) of an object's key; None when it is not a pack's."""
    match key.split("/"):
        case ["lineages", lineage, "packs", pack]:
            return lineage, pack
        case _:
            return None


class PackBuilder:
    """One pack while it is filled."""

    def __init__(self, lineage: str) -> None:
        self.id = new_id("pack")
        self.lineage = lineage
        self.bytes = 0
        self.chunks: list[StoredChunk] = []
        self._parts: list[bytes] = []

    def add(self, chunk: bytes, sealed: bytes, size: int) -> None:
        """Append a sealed chunk; `size` is that of its data."""
        self.chunks.append(StoredChunk(chunk, self.id, self.bytes, len(sealed), size))
        self._parts.append(sealed)
        self.bytes += len(sealed)

    def finish(self, sealer: Sealer) -> bytes:
        """The object to store. Nothing can be added afterwards."""
        rows = [[one.id.hex(), one.offset, one.stored_bytes, one.bytes] for one in self.chunks]
        text = json.dumps(rows, separators=(",", ":")).encode()
        packed = _LENGTH.pack(len(text)) + compress(text, zstandard.ZstdCompressor(level=LEVEL))
        index = sealer.seal(index_id(self.id), packed)
        self._parts += [index, _LENGTH.pack(len(index))]
        data = b"".join(self._parts)
        self._parts.clear()
        self.bytes = len(data)
        return data


def read_index(data: bytes, pack: str, sealer: Sealer) -> list[StoredChunk]:
    """What a pack's object says that it holds; `data` is all of it or an end of it with the index in it. Corrupt."""
    if len(data) < _LENGTH.size:
        raise Corrupt(f"pack {pack} is truncated")
    (length,) = _LENGTH.unpack(data[-_LENGTH.size :])
    if not NONCE_BYTES + TAG_BYTES < length <= min(INDEX_BYTES_MAX, len(data) - _LENGTH.size):
        raise Corrupt(f"pack {pack} has no index at its end")
    packed = sealer.open(index_id(pack), data[-_LENGTH.size - length : -_LENGTH.size])
    try:
        (size,) = _LENGTH.unpack(packed[: _LENGTH.size])
        rows = json.loads(decompress(packed[_LENGTH.size :], size))
        return [
            StoredChunk(bytes.fromhex(chunk), pack, int(offset), int(stored), int(size))
            for chunk, offset, stored, size in rows
        ]
    except (struct.error, ValueError, TypeError, OverflowError, RecursionError):
        raise Corrupt(f"the index of pack {pack} is of a form that this program does not know") from None


async def stored_index(blobs: Blobs, lineage: str, pack: str, pack_bytes: int, sealer: Sealer) -> list[StoredChunk]:
    """As `read_index`, read from the end of the stored object of that size. Corrupt, NotFound."""
    key = pack_key(lineage, pack)
    tail = min(pack_bytes, 2**20)
    try:
        data = await blobs.get_range(key, pack_bytes - tail, tail)
        if tail >= _LENGTH.size and _LENGTH.unpack(data[-_LENGTH.size :])[0] > tail - _LENGTH.size:
            data = await blobs.get(key)
    except NotFound:
        raise NotFound(f"pack {pack} of {lineage} is not stored, or is cut short") from None
    return read_index(data, pack, sealer)


def index_id(pack: str) -> bytes:
    return hashlib.blake2b(b"index of " + pack.encode(), digest_size=ID_BYTES).digest()
