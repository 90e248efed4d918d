"""Read: for each path what an entry needs but its chunks, and the bytes of files without their holes.

Small files are packed many to a frame, and read again when they changed meanwhile. Larger ones are streamed once: what
changes below us is seen by the next scan, since a path's stamp is taken before its bytes.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from atoll.sidekick.keeper_paths import VANISHED, Folders, checked, record, refused
from atoll.sidekick.keeper_wire import (
    APART,
    CHUNK_BYTES,
    FOUND,
    GONE,
    HERE,
    HOLE,
    HOLES_MAX,
    LONG_HOLES_MAX,
    PATH,
    PIECE_BYTES,
    STAT,
    XATTRS_BYTES_MAX,
    pack_xattrs,
)
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.sidekick.keeper_link import Link

AGAIN_BYTES_MAX = 8 * 2**20  # files up to this size are read again when they changed meanwhile
TRIES = 3
LEASE_S = 60.0  # of waiting, in all, for those who hold leases; the kernel breaks one after 45 s
LEASE_PAUSE_S = 0.02

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TYPE, _REGULAR, _FOLDER, _LINK, _FIFO = 0o170000, 0o100000, 0o040000, 0o120000, 0o010000

Extents = list[tuple[int, int]]  # (offset, length)


def read(root: int, link: Link, request: dict[str, Any]) -> None:
    """Takes DATA with paths, END; DATA with an answer for each path in order, END."""
    with Folders(root) as folders:
        reader = _Reader(folders, link, contents=request.get("contents", True))
        while (paths := link.read_data()) is not None:
            at = 0
            while at < len(paths):
                try:
                    size = PATH.unpack_from(paths, at)[0]
                except struct.error:
                    raise Refused("bad_request", "paths: cut off", "paths") from None
                at += PATH.size
                reader.tell(checked(bytes(paths[at : at + size])))
                at += size
            link.flush()
            folders.forget()  # they may be elsewhere when the next ones are asked for
    link.end()


class _Reader:
    def __init__(self, folders: Folders, link: Link, *, contents: bool) -> None:
        self._folders = folders
        self._link = link
        self._contents = contents
        self._patience_s = LEASE_S

    def tell(self, path: bytes) -> None:
        try:
            folder, name = self._folders.of(path)
            for _ in range(TRIES):
                if self._tell(folder, name):
                    return
        except _Scattered:
            rule = f"a file of a workspace has at most {LONG_HOLES_MAX} holes of a MiB or more, and this one has more"
            told = f"path {os.fsdecode(path)!r}: {rule}; no revision can be taken while it is there"
            raise Refused("too_large", told, "path") from None
        except OSError as error:
            if error.errno not in VANISHED:
                raise refused(error, path) from None
        self._link.add(FOUND.pack(GONE, 0, 0, 0, 0))

    def _tell(self, folder: int, name: bytes) -> bool:
        """False when it became something else between two looks."""
        try:
            fd = self._open(folder, name)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self._tell_link(folder, name)
            if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device: trees do not keep them
                raise FileNotFoundError(errno.ENOENT, "not kept") from None
            raise
        try:
            info = os.fstat(fd)
            kind = info.st_mode & _TYPE
            if kind == _REGULAR and not self._contents:
                self._link.add(_found(HERE, info))
            elif kind == _REGULAR:
                self._tell_file(fd, info)
            elif kind == _FOLDER:
                self._link.add(_found(HERE, info, xattrs=_xattrs(fd)))
            elif kind == _FIFO:
                self._link.add(_found(HERE, info))
            else:
                raise FileNotFoundError(errno.ENOENT, "not kept")
        finally:
            os.close(fd)
        return True

    def _open(self, folder: int, name: bytes) -> int:
        while True:
            try:
                return os.open(name, _FLAGS, dir_fd=folder)
            except BlockingIOError:  # somebody has a lease on it, and is told to give it back
                if self._patience_s <= 0:
                    raise
                time.sleep(LEASE_PAUSE_S)
                self._patience_s -= LEASE_PAUSE_S

    def _tell_link(self, folder: int, name: bytes) -> bool:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if info.st_mode & _TYPE != _LINK:
            return False
        try:
            target = os.readlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        self._link.add(_found(HERE, info, target=target))
        return True

    def _tell_file(self, fd: int, info: os.stat_result) -> None:
        if info.st_size > AGAIN_BYTES_MAX:
            extents, holes = _extents(fd, info)
            self._stream(fd, _found(APART, info, info.st_size, holes, _xattrs(fd), data=_total(extents)), extents)
            return
        left = TRIES
        while True:
            left -= 1
            size, holes, data = _contents(fd, info)
            xattrs = _xattrs(fd)
            after = os.fstat(fd)
            # of one that never rests the stamp is older than its bytes: the next scan sees that it changed
            if left == 0 or (after.st_ctime_ns == info.st_ctime_ns and size == info.st_size):
                break
            info = after
        total = sum(map(len, data))
        if total <= PIECE_BYTES:
            self._link.add(b"".join((_found(HERE, info, size, holes, xattrs, data=total), *data)))
            return
        self._link.add(_found(APART, info, size, holes, xattrs, data=total))
        self._link.flush()
        for piece in data:
            self._link.send(piece)

    def _stream(self, fd: int, found: bytes, extents: Extents) -> None:
        """Exactly as many bytes as `found` tells: what was cut off meanwhile is zeros."""
        link = self._link
        link.add(found)
        link.flush()
        for offset, length in extents:
            end = offset + length
            while offset < end:
                data = os.pread(fd, min(PIECE_BYTES, end - offset), offset)
                if not data:
                    data = bytes(min(PIECE_BYTES, end - offset))
                link.send(data)
                offset += len(data)


def _found(
    flags: int,
    info: os.stat_result,
    size: int = 0,
    holes: Extents | tuple[()] = (),
    xattrs: bytes = b"",
    *,
    target: bytes = b"",
    data: int = 0,
) -> bytes:
    seen = record(info)
    if size != info.st_size:
        fields = list(STAT.unpack(seen))
        fields[1] = size
        seen = STAT.pack(*fields)
    head = FOUND.pack(flags, len(target), len(holes), len(xattrs), data)
    return b"".join((head, seen, target, *(HOLE.pack(*hole) for hole in holes), xattrs))


def _contents(fd: int, info: os.stat_result) -> tuple[int, Extents, list[bytes]]:
    """(its size as it was read, its holes, the bytes between them)."""
    size = info.st_size
    if info.st_blocks * 512 >= size:
        data = os.pread(fd, size + 1, 0)
        return (len(data), [], [data]) if len(data) <= size else (size, [], [data[:size]])
    extents, holes = _extents(fd, info)
    pieces: list[bytes] = []
    for offset, length in extents:
        data = os.pread(fd, length, offset)
        pieces.append(data if len(data) == length else data + bytes(length - len(data)))
    return size, holes, pieces


class _Scattered(Exception):
    """A file has more long holes than are told."""


def _extents(fd: int, info: os.stat_result) -> tuple[Extents, Extents]:
    """(what is to be read, the holes between) of a file of that size."""
    size = info.st_size
    if info.st_blocks * 512 >= size:
        return [(0, size)], []
    extents: Extents = []
    holes: Extents = []
    at = 0
    while at < size:
        try:
            start = min(os.lseek(fd, at, os.SEEK_DATA), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            start = size  # nothing but a hole from here on
        if start > at and (len(holes) < HOLES_MAX or _fills_a_chunk(at, start, size)):
            if len(holes) >= LONG_HOLES_MAX:
                raise _Scattered
            holes.append((at, start - at))
            at = start
            if at >= size:
                break
        try:
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            end = size  # that hole again, or it was cut off meanwhile
        if extents and sum(extents[-1]) == at:  # the hole between is not told: zeros
            at = extents.pop()[0]
        extents.append((at, end - at))
        at = end
    return extents, holes


def _fills_a_chunk(begin: int, end: int, size: int) -> bool:
    """Whether a hole from `begin` to `end` holds a whole chunk of the file, or its shorter last one."""
    first = -(-begin // CHUNK_BYTES) * CHUNK_BYTES
    return min(first + CHUNK_BYTES, size) <= end and first < end


def _total(extents: Extents) -> int:
    return sum(length for _, length in extents)


def _xattrs(fd: int) -> bytes:
    """Its user.* attributes, packed and sorted."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return b""  # this file system has none, or more than a list may have
    if not names:
        return b""
    found: list[tuple[bytes, bytes]] = []
    room = XATTRS_BYTES_MAX
    for name in sorted(os.fsencode(name) for name in names if name.startswith("user.")):
        try:
            value = os.getxattr(fd, name)
        except OSError:
            continue  # it is gone
        room -= len(name) + len(value)
        if room < 0:
            break
        found.append((name, value))
    return pack_xattrs(found)
