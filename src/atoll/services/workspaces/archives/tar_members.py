"""Tar members: entries as the blocks of a tar archive (POSIX pax): what ordinary tar programs unpack, and nothing lost.

Times have nanoseconds (pax `mtime`), names and extended attributes (`SCHILY.xattr.*`) are raw bytes, with
`hdrcharset=BINARY` where they are not UTF-8; sparse files are in GNU's format 1.0. GNU tar and bsdtar read all of it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atoll.domain.tree import Entry, EntryKind

BLOCK = tarfile.BLOCKSIZE
END = bytes(tarfile.RECORDSIZE)
SPARSE_BYTES_MIN = 64 * 2**10  # of holes: with less a file is written out in full
_NAME_BYTES = 100
_OCTAL_MAX = 8**11 - 1
_TYPES = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.DIRECTORY: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
    EntryKind.HARDLINK: tarfile.LNKTYPE,
    EntryKind.FIFO: tarfile.FIFOTYPE,
}


class Member(NamedTuple):
    """An entry in an archive: `header` comes first, then its contents between those `segments` (offset, length), then
    `padding`."""

    header: bytes
    segments: list[tuple[int, int]]
    padding: bytes


def member(entry: Entry, root: bytes = b"") -> Member:
    """The entry below the directory `root`; an empty one: at the top."""
    name = _under(root, entry.path) or b"."
    link = _under(root, entry.target) if entry.kind is EntryKind.HARDLINK else entry.target
    info = tarfile.TarInfo()
    info.type = _TYPES[entry.kind]
    info.mode = 0o777 if entry.kind is EntryKind.SYMLINK else entry.mode
    info.uid, info.gid = entry.uid, entry.gid
    segments = [(0, entry.size)] if entry.size else []
    sparse_map = b""
    records: list[tuple[bytes, bytes]] = []
    holes = list(entry.all_holes())
    if sum(length for _, length in holes) >= SPARSE_BYTES_MIN:
        segments = list(_data(holes, entry.size))
        sparse_map = _sparse_map(segments)
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % entry.size),
        ]
        folder, _, base = name.rpartition(b"/")
        name = _under(folder, b"GNUSparseFile.0/" + base)
    if entry.kind is EntryKind.DIRECTORY:
        name += b"/"
    info.name, needs_record = _short(name)
    if needs_record:
        records.append((b"path", name))
    info.linkname, needs_record = _short(link)
    if needs_record:
        records.append((b"linkpath", link))
    size = len(sparse_map) + sum(length for _, length in segments)
    info.size = size if size <= _OCTAL_MAX else 0
    if size > _OCTAL_MAX:
        records.append((b"size", b"%d" % size))
    seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
    info.mtime = min(max(seconds, 0), _OCTAL_MAX)
    if nanoseconds or info.mtime != seconds:
        records.append((b"mtime", _decimal(entry.mtime_ns)))
    records += [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs]
    header = _extended(records) + info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + sparse_map
    return Member(header, segments, bytes(-size % BLOCK))


def _under(folder: bytes, path: bytes) -> bytes:
    return folder + b"/" + path if folder and path else folder or path


def _short(name: bytes) -> tuple[str, bool]:
    """The name as the old header has it, and whether it needs a record besides."""
    if len(name) <= _NAME_BYTES and name.isascii():
        return name.decode(), False
    return name[:_NAME_BYTES].decode("ascii", "replace").replace("\ufffd", "?"), True


def _decimal(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    return b"%s%d.%09d" % (sign, *divmod(abs(nanoseconds), 10**9))


def _data(holes: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """What lies between the holes; an empty segment at the end of a file that ends with one."""
    at = 0
    for start, length in holes:
        if start > at:
            yield at, start - at
        at = start + length
    yield at, size - at


def _sparse_map(segments: list[tuple[int, int]]) -> bytes:
    text = b"%d\n" % len(segments) + b"".join(b"%d\n%d\n" % segment for segment in segments)
    return text + bytes(-len(text) % BLOCK)


def _extended(records: list[tuple[bytes, bytes]]) -> bytes:
    """The extended header before a member's own; nothing when there are no records."""
    if not records:
        return b""
    if not all(_is_utf8(value) for _, value in records):
        records = [(b"hdrcharset", b"BINARY"), *records]
    text = b"".join(_record(keyword, value) for keyword, value in records)
    info = tarfile.TarInfo("././@PaxHeader")
    info.type = tarfile.XHDTYPE
    info.size = len(text)
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + text + bytes(-len(text) % BLOCK)


def _record(keyword: bytes, value: bytes) -> bytes:
    """`LENGTH KEYWORD=VALUE\\n`, where the length counts its own digits."""
    rest = b" %s=%s\n" % (keyword, value)
    length = len(rest)
    while len(rest) + len(b"%d" % length) != length:
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
