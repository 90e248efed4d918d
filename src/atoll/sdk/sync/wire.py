"""What sync sends and gets: frames of chunks, and lists of entries. See docs/workspaces-api.md, "Sync"."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterable, Iterator

import zstandard

from atoll.domain.errors import Corrupt, InvalidInput
from atoll.domain.tree import CHUNK_BYTES, ID_BYTES, USER_ID, Entry, chunk_id, decode_entry, encode_entry, raw, text

ENTRIES_TYPE = "application/vnd.atoll.entries+zstd"
ENTRIES_BYTES_MAX = 2**31  # of a list of entries, decompressed
LEVEL = 3
_HEAD = struct.Struct(f"!{ID_BYTES}sII")
_STORED_BYTES_MAX = CHUNK_BYTES + 2**16
_own = threading.local()


def frame(chunk: bytes, data: bytes | memoryview) -> bytes:
    """A chunk as it travels."""
    stored = _compressor().compress(data)
    return _HEAD.pack(chunk, len(data), len(stored)) + stored


def _compressor() -> zstandard.ZstdCompressor:
    """This thread's own: they must not be shared."""
    found: zstandard.ZstdCompressor | None = getattr(_own, "compressor", None)
    if found is None:
        found = _own.compressor = zstandard.ZstdCompressor(level=LEVEL)
    return found


class FrameReader:
    """Frames out of pieces of a stream, each chunk checked against its id."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._decompressor = zstandard.ZstdDecompressor()

    @property
    def cut(self) -> bool:
        """Whether a frame is there in part."""
        return bool(self._rest)

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """(id, contents) of each whole frame; None: the workspace does not have it. Corrupt."""
        self._rest += piece
        at = 0
        try:
            while len(self._rest) - at >= _HEAD.size:
                chunk, size, stored = _HEAD.unpack_from(self._rest, at)
                if size > CHUNK_BYTES or stored > _STORED_BYTES_MAX:
                    raise Corrupt("the server sent a chunk that is larger than chunks are")
                end = at + _HEAD.size + stored
                if len(self._rest) < end:
                    break
                data = self._open(chunk, size, bytes(self._rest[at + _HEAD.size : end])) if stored else None
                at = end
                yield chunk, data
        finally:
            del self._rest[:at]

    def _open(self, chunk: bytes, size: int, stored: bytes) -> bytes:
        try:
            if zstandard.frame_content_size(stored) not in (-1, size):  # it may lie; -1: it does not say
                raise zstandard.ZstdError
            data = self._decompressor.decompress(stored, max_output_size=size + 1)
        except zstandard.ZstdError:
            data = b""
        if len(data) != size or chunk_id(data) != chunk:
            raise Corrupt(f"the server sent a chunk that is not {chunk.hex()[:16]}")
        return data


def pack_entries(entries: Iterable[Entry], gone: Iterable[bytes] = ()) -> bytes:
    """Entries that stand now, and paths at which nothing does any more, sorted."""
    lines = [(entry.path, encode_entry(entry)) for entry in entries]
    lines += [(path, json.dumps([text(path)]).encode()) for path in gone]
    return _compressor().compress(b"\n".join(line for _, line in sorted(lines)))


def unpack_entries(data: bytes) -> tuple[list[Entry], list[bytes]]:
    """(entries, paths that are gone), owners left out; Corrupt, InvalidInput."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            body = reader.read(ENTRIES_BYTES_MAX)
    except zstandard.ZstdError:
        raise Corrupt("the server's list of entries cannot be read") from None
    entries: list[Entry] = []
    gone: list[bytes] = []
    for line in body.split(b"\n"):
        if not line:
            continue
        if b'","' in line:  # between the path and the kind; within a path it would be escaped
            entry = decode_entry(line)
            ours = entry.uid == entry.gid == USER_ID
            entries.append(entry if ours else entry._replace(uid=USER_ID, gid=USER_ID))
        else:
            gone.append(_gone(line))
    return entries, gone


def _gone(line: bytes) -> bytes:
    try:
        (path,) = json.loads(line)
        return raw(path)
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput("the server's list of entries has a line that is none", field="entries") from None
