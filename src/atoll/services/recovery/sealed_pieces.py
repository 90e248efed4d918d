"""Sealed pieces: a stream of bytes as numbered objects of a backup, compressed and encrypted; `backup` calls it.

Piece N of NAME is `<folder>/NAME-NNNNN`. What comes back is what was stored, or Corrupt.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.blobs.base import Blobs
from atoll.domain.errors import Corrupt, NotFound

PIECE_BYTES = 8 * 2**20  # of a piece, about, as it is stored
SLICE_BYTES = 2**16  # decompressed at once, so that a piece of zeros does not fill the memory
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Stored:
    """A stream as it lies in its pieces; `bytes` and `sha256` (hex) are those of its plain bytes."""

    pieces: int
    bytes: int
    sha256: str


class SealedPieces:
    """Streams of one backup, under one key that is used for nothing else."""

    def __init__(self, blobs: Blobs, folder: str, key: bytes) -> None:
        self._blobs = blobs
        self._folder = folder
        self._cipher = AESGCM(key)

    def seal(self, label: str, data: bytes) -> bytes:
        """The sealed form of `data`, which opens under that label only."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, f"{self._folder}/{label}".encode())

    def open(self, label: str, sealed: bytes) -> bytes:
        """What was sealed under that label. Corrupt."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], f"{self._folder}/{label}".encode())
        except (InvalidTag, ValueError):
            raise Corrupt(f"{self._folder}/{label} is not what was stored") from None

    async def write(self, name: str, data: AsyncIterable[bytes]) -> Stored:
        """Store the stream; what `read` needs. Unavailable."""
        digest, size, pieces = hashlib.sha256(), 0, 0
        deflate = zstandard.ZstdCompressor(level=3).compressobj()
        waiting = b""
        async for plain in data:
            digest.update(plain)
            size += len(plain)
            waiting += await asyncio.to_thread(deflate.compress, plain)
            if len(waiting) >= PIECE_BYTES:
                await self._put(name, pieces, waiting)
                pieces, waiting = pieces + 1, b""
        await self._put(name, pieces, waiting + deflate.flush())
        return Stored(pieces + 1, size, digest.hexdigest())

    async def read(self, name: str, stored: Stored) -> AsyncGenerator[bytes]:
        """Its plain bytes. Corrupt, at the end at the latest, when they are not those that were stored."""
        digest, size = hashlib.sha256(), 0
        inflate = zstandard.ZstdDecompressor().decompressobj()
        for number in range(stored.pieces):
            label = _label(name, number)
            try:
                sealed = await self._blobs.get(f"{self._folder}/{label}")
            except NotFound:
                raise Corrupt(f"{self._folder}/{label} is missing") from None
            piece = await asyncio.to_thread(self.open, label, sealed)
            for at in range(0, len(piece), SLICE_BYTES):
                try:
                    plain = await asyncio.to_thread(inflate.decompress, piece[at : at + SLICE_BYTES])
                except zstandard.ZstdError:
                    raise Corrupt(f"{self._folder}/{label} is not what was stored") from None
                digest.update(plain)
                size += len(plain)
                yield plain
        if size != stored.bytes or digest.hexdigest() != stored.sha256:
            raise Corrupt(f"{self._folder}/{name} is not what was stored")

    async def _put(self, name: str, number: int, piece: bytes) -> None:
        label = _label(name, number)
        await self._blobs.put(f"{self._folder}/{label}", await asyncio.to_thread(self.seal, label, piece))


def _label(name: str, number: int) -> str:
    return f"{name}-{number:05}"
