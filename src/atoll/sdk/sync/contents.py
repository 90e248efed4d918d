"""What a local file holds: the ids of its chunks, its holes and its extended attributes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from atoll.domain.chunk_ids import CHUNK_BYTES, hole_run, joined
from atoll.domain.tree import HOLES_MAX, chunk_id, unfit_file

_TRIES = 3  # to read a file that changes meanwhile
_BLOCK_BYTES = 512  # that st_blocks counts in


class Stamp(NamedTuple):
    """Changes whenever a path's contents or metadata do."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Contents(NamedTuple):
    """A file as it was read."""

    status: os.stat_result
    chunks: bytes
    holes: tuple[tuple[int, int], ...]
    xattrs: tuple[tuple[bytes, bytes], ...]


def stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_contents(path: bytes) -> Contents:
    """Read a regular file whole, again when it changes meanwhile. OSError: it is gone, or no file any more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        for _ in range(_TRIES):
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "no regular file any more")
            holes = holes_of(descriptor, status)
            chunks = _chunks_of(descriptor, status.st_size, holes)
            if stamp_of(os.fstat(descriptor)) == stamp_of(status) and chunks is not None:
                return Contents(status, chunks, holes, xattrs_of(descriptor))
        raise OSError(errno.EBUSY, "it changes while it is read")
    finally:
        os.close(descriptor)


def _chunks_of(descriptor: int, size: int, holes: tuple[tuple[int, int], ...]) -> bytes | None:
    """None when the file is shorter by now. OSError (EFBIG) when it has more than a tree tells of one."""
    runs = list(_whole_chunks(size, holes))
    slots = -(-size // CHUNK_BYTES) - sum(end - first - 1 for first, end in runs)
    if (unfit := unfit_file(size, slots, len(holes))) is not None:
        raise OSError(errno.EFBIG, unfit)
    ids: list[bytes] = []
    at = 0
    for first, end in [*runs, (-(-size // CHUNK_BYTES), 0)]:
        for number in range(at, first):
            length = min(CHUNK_BYTES, size - number * CHUNK_BYTES)
            data = os.pread(descriptor, length, number * CHUNK_BYTES)
            if len(data) != length:
                return None
            ids.append(chunk_id(data))
        ids.append(hole_run(max(0, end - first)))
        at = end
    return joined(b"".join(ids))


def _whole_chunks(size: int, holes: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """(number of the first, number after the last) of the chunks that lie in one hole."""
    for at, length in holes:
        first = -(-at // CHUNK_BYTES)
        end = (at + length) // CHUNK_BYTES if at + length < size else -(-size // CHUNK_BYTES)
        if first < end:
            yield first, end


def holes_of(descriptor: int, status: os.stat_result) -> tuple[tuple[int, int], ...]:
    """(offset, length) of each hole, where the file system tells; of very many those that fill a chunk, and the rest is
    read as the zeros that it is."""
    if status.st_blocks * _BLOCK_BYTES >= status.st_size:
        return ()
    holes: list[tuple[int, int]] = []
    at = 0
    while at < status.st_size:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return ()
            data = status.st_size  # nothing but a hole from here on
        if data > at and (len(holes) < HOLES_MAX // 2 or data - at >= 2 * CHUNK_BYTES):
            holes.append((at, min(data, status.st_size) - at))
            if len(holes) > HOLES_MAX:
                raise OSError(errno.EFBIG, unfit_file(0, 0, len(holes)))
        if data >= status.st_size:
            break
        at = os.lseek(descriptor, data, os.SEEK_HOLE)
    return tuple(holes)


def xattrs_of(place: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Those that users may set, sorted; none where the file system has none."""
    try:
        names = [name for name in os.listxattr(place) if name.startswith("user.")]
        return tuple(sorted((os.fsencode(name), os.getxattr(place, name)) for name in names))
    except OSError:
        return ()
