"""Packing: a keeper's values as the bytes of its protocol and back; the client's side of keeper_wire.py.

What a keeper sends is looked at, not trusted: it runs where the tenant's files are. Whatever is not what it should be
raises Internal.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator

from atoll.domain.errors import Internal, InvalidInput
from atoll.domain.tree import Entry, EntryKind, text
from atoll.sidekick import keeper_wire as packed
from atoll.sidekick import protocol as wire
from atoll.sidekick.keeper_values import Data, ReadFile, Seen, Skip, Step, Write

PATHS_BYTES = 32_768  # of `read`: asked for in one frame

_WRITE_STEP = bytes((packed.STEP_WRITE,))
_KINDS = {0o100000: "f", 0o040000: "d", 0o120000: "l", 0o010000: "p"}


async def path_frames(paths: AsyncIterator[bytes], asked: deque[bytes]) -> AsyncIterator[bytes]:
    frame = bytearray()
    async for path in paths:
        _check_path(path)
        frame += packed.PATH.pack(len(path))
        frame += path
        asked.append(path)
        if len(frame) >= PATHS_BYTES:
            yield bytes(frame)
            frame.clear()
    if frame:
        yield bytes(frame)


async def data_frames(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        for at in range(0, len(piece), wire.MAX_FRAME_BYTES):
            yield piece[at : at + wire.MAX_FRAME_BYTES]


async def step_frames(steps: AsyncIterator[Step], written: list[Entry]) -> AsyncIterator[bytes]:
    """Steps packed, many to a frame; the entries of those that write are added to `written`."""
    frame = bytearray()
    async for step in steps:
        if isinstance(step, Data):
            for at in range(0, len(step.data), packed.PIECE_BYTES):
                piece = step.data[at : at + packed.PIECE_BYTES]
                frame.append(packed.STEP_DATA)
                frame += packed.DATA.pack(len(piece))
                frame += piece
                if len(frame) >= packed.PIECE_BYTES:
                    yield bytes(frame)
                    frame.clear()
        elif isinstance(step, Write):
            written.append(step.entry)
            frame += _pack_write(step.entry)
        elif isinstance(step, Skip):
            frame.append(packed.STEP_SKIP)
            frame += packed.SKIP.pack(step.length)
        else:
            _check_path(step.path)
            frame.append(packed.STEP_REMOVE)
            frame += packed.DATA.pack(len(step.path))
            frame += step.path
        if len(frame) >= packed.PIECE_BYTES:
            yield bytes(frame)
            frame.clear()
    if frame:
        yield bytes(frame)


def _pack_write(entry: Entry) -> bytes:
    _check_path(entry.path)
    try:
        xattrs = packed.pack_xattrs(entry.xattrs)
        if len(xattrs) > packed.XATTRS_BYTES_MAX * 2:
            raise InvalidInput(f"path {text(entry.path)!r}: its attributes are too large", field="xattrs")
        head = packed.WRITE.pack(
            entry.kind.value.encode(),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size,
            len(entry.path),
            len(entry.target),
            len(xattrs),
        )
    except struct.error as error:
        raise InvalidInput(f"path {text(entry.path)!r}: {error}", field="path") from None
    return b"".join((_WRITE_STEP, head, entry.path, entry.target, xattrs))


def _check_path(path: bytes) -> None:
    if path and not packed.is_path(path):
        raise InvalidInput(f"path {text(path)!r}: not a path of a tree", field="path")


def split_scan(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The blocks of a piece of a scan: (the folder's path, the block)."""
    at = 0
    while at < len(payload):
        try:
            folder_bytes, count, names_bytes = packed.BLOCK.unpack_from(payload, at)
        except struct.error:
            raise Internal("the keeper sent what is no scan") from None
        begin = at + packed.BLOCK.size
        end = begin + folder_bytes + count * packed.STAT.size + names_bytes
        if end > len(payload):
            raise Internal("the keeper sent what is no scan")
        yield payload[begin : begin + folder_bytes], payload[at:end]
        at = end


def unpack_scan(payload: bytes) -> list[Seen]:
    found: list[Seen] = []
    at = 0
    try:
        while at < len(payload):
            folder_bytes, count, names_bytes = packed.BLOCK.unpack_from(payload, at)
            at += packed.BLOCK.size
            folder = payload[at : at + folder_bytes]
            at += folder_bytes
            end = at + count * packed.STAT.size
            names = payload[end : end + names_bytes].split(b"\0")
            prefix = folder + b"/" if folder else b""
            kinds = _KINDS
            found += [
                Seen(
                    prefix + name,
                    kinds.get(mode & 0o170000, "?"),
                    0 if mode & 0o170000 == 0o120000 else mode & 0o7777,
                    uid,
                    gid,
                    size,
                    mtime_ns,
                    links,
                    inode,
                    ctime_ns,
                )
                for (inode, size, mtime_ns, ctime_ns, mode, uid, gid, links), name in zip(
                    packed.STAT.iter_unpack(payload[at:end]), names, strict=True
                )
            ]
            at = end + names_bytes
    except (struct.error, ValueError):
        raise Internal("the keeper sent what is no scan") from None
    return found


def unpack_found(payload: bytes, at: int, path: bytes) -> tuple[ReadFile, int, int, int]:
    """(the file, how many bytes of it follow here, how many in frames of their own, where this ends)."""
    try:
        flags, target_bytes, holes, xattrs_bytes, data = packed.FOUND.unpack_from(payload, at)
        at += packed.FOUND.size
        if flags == packed.GONE:
            return ReadFile(path, gone=True), 0, 0, at
        seen = _seen(path, packed.STAT.unpack_from(payload, at))
        at += packed.STAT.size
        target = payload[at : at + target_bytes]
        at += target_bytes
        end = at + holes * packed.HOLE.size
        gaps = tuple(packed.HOLE.iter_unpack(payload[at:end])) if holes else ()
        at = end + xattrs_bytes
        xattrs = packed.unpack_xattrs(payload[end:at]) if xattrs_bytes else ()
    except struct.error:
        raise Internal("the keeper sent what is no answer to a read") from None
    here = data if flags == packed.HERE else 0
    if at + here > len(payload):
        raise Internal("the keeper sent fewer bytes than it had told")
    return ReadFile(path, False, seen.size, target, gaps, xattrs, seen), here, data - here, at


def unpack_applied(records: bytearray, written: list[Entry]) -> list[Seen]:
    if len(records) != len(written) * packed.STAT.size:
        raise Internal("the keeper told of other paths than were written")
    found = [_seen(entry.path, fields) for entry, fields in zip(written, packed.STAT.iter_unpack(records), strict=True)]
    targets = {  # a further name changes what stat says of the first
        entry.target: seen for entry, seen in zip(written, found, strict=True) if entry.kind is EntryKind.HARDLINK
    }
    if not targets:
        return found
    return [
        later._replace(path=seen.path)
        if (later := targets.get(entry.target if entry.kind is EntryKind.HARDLINK else entry.path)) is not None
        and later.inode == seen.inode
        else seen
        for entry, seen in zip(written, found, strict=True)
    ]


def _seen(path: bytes, fields: tuple[int, ...]) -> Seen:
    inode, size, mtime_ns, ctime_ns, mode, uid, gid, links = fields
    kind = _KINDS.get(mode & 0o170000, "?")
    return Seen(path, kind, 0 if kind == "l" else mode & 0o7777, uid, gid, size, mtime_ns, links, inode, ctime_ns)
