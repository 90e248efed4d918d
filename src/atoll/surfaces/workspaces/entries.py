"""Entries on the wire: lines of JSON, compressed with zstd as a whole; `["path"]` says that a path is gone.

Coding works on threads, a piece at a time, and holds no more than that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import zstandard

from atoll.domain.errors import InvalidInput, TooLarge
from atoll.domain.tree import Entry, check_path, decode_entry, encode_entry, raw, text
from atoll.surfaces.bodies import close_iterator

MEDIA = "application/vnd.atoll.entries+zstd"
LEVEL = 3
LINES = 2048  # coded at once
SLICE_BYTES = 1024  # of input at once: zstd makes at most 32 MiB of it
WINDOW_BYTES_MAX = 2**23
LINE_BYTES_MAX = 16 * 2**20  # names the chunks of a file of 380 GB
LINES_BYTES_MAX = 2**30  # of a whole body, unpacked
LINES_MAX = 4_000_000
BODY_BYTES_MAX = 256 * 2**20  # of a whole body as it travels


async def write_entries(changes: AsyncIterator[Entry | bytes]) -> AsyncIterator[bytes]:
    """The body of an answer."""
    coder = zstandard.ZstdCompressor(level=LEVEL).compressobj()

    def pack(batch: list[Entry | bytes], *, last: bool = False) -> bytes:
        packed = coder.compress(b"".join(_line(one) for one in batch))
        return packed + coder.flush() if last else packed

    try:
        batch: list[Entry | bytes] = []
        async for change in changes:
            batch.append(change)
            if len(batch) >= LINES:
                packed = await asyncio.to_thread(pack, batch)
                batch = []
                if packed:
                    yield packed
        yield await asyncio.to_thread(pack, batch, last=True)
    finally:
        await close_iterator(changes)


def _line(change: Entry | bytes) -> bytes:
    if isinstance(change, bytes):
        return json.dumps([text(change)], separators=(",", ":")).encode() + b"\n"
    return encode_entry(change) + b"\n"


async def read_entries(pieces: AsyncIterator[bytes]) -> AsyncIterator[Entry | bytes]:
    """The changes in a body. InvalidInput names the first line that is wrong: its form, its path, its order."""
    reader = _Reader()
    async for piece in pieces:
        for change in await asyncio.to_thread(reader.feed, piece):
            yield change
    for change in reader.end():
        yield change


class _Reader:
    def __init__(self) -> None:
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
        self._rest = b""
        self._bytes = self._lines = 0
        self._last: bytes | None = None

    def feed(self, piece: bytes) -> list[Entry | bytes]:
        return [
            change for at in range(0, len(piece), SLICE_BYTES) for change in self._slice(piece[at : at + SLICE_BYTES])
        ]

    def end(self) -> list[Entry | bytes]:
        """What stood after the last newline."""
        if not self._unpacker.eof:
            raise InvalidInput("the entries are cut short", field="entries")
        return [self._change(self._rest)] if self._rest else []

    def _slice(self, data: bytes) -> Iterator[Entry | bytes]:
        if self._unpacker.eof:
            raise InvalidInput("the entries are followed by something else", field="entries")
        try:
            unpacked = self._unpacker.decompress(data)
        except zstandard.ZstdError as error:
            raise InvalidInput(f"the entries are not zstd: {error}", field="entries") from None
        if self._unpacker.unused_data:
            raise InvalidInput("the entries are followed by something else", field="entries")
        self._bytes += len(unpacked)
        if self._bytes > LINES_BYTES_MAX:
            raise TooLarge(f"the entries are larger than {LINES_BYTES_MAX} bytes")
        begin, data = 0, self._rest + unpacked if self._rest else unpacked
        while (end := data.find(b"\n", begin)) >= 0:  # not split: a list of empty lines would be large
            yield self._change(data[begin:end])
            begin = end + 1
        self._rest = data[begin:]
        if len(self._rest) > LINE_BYTES_MAX:
            raise TooLarge(f"line {self._lines + 1} of the entries is longer than {LINE_BYTES_MAX} bytes")

    def _change(self, line: bytes) -> Entry | bytes:
        self._lines += 1
        if self._lines > LINES_MAX:
            raise TooLarge(f"there are more than {LINES_MAX} entries")
        change = _decoded(line)
        path = change if isinstance(change, bytes) else change.path
        check_path(path)
        if self._last is not None and path <= self._last:
            raise InvalidInput(f"path {text(path)!r}: entries must be sorted by path, each once", field="path")
        if change == b"":
            raise InvalidInput("path '': the root of a workspace cannot be gone", field="path")
        self._last = path
        return change


def _decoded(line: bytes) -> Entry | bytes:
    if line.endswith(b'"]'):  # most entries end otherwise
        try:
            (path,) = json.loads(line)
            return raw(path)
        except (ValueError, TypeError, AttributeError, RecursionError):
            pass  # an entry, or nothing: the next line says what is wrong
    return decode_entry(line)
