"""Scan: every path of a tree with what stat says of it, packed folder by folder; and what a tree holds in all."""

from __future__ import annotations

import os
import struct
import sys

from atoll.sidekick.keeper_paths import VANISHED, open_folder, record, refused
from atoll.sidekick.keeper_wire import BLOCK, DEPTH_MAX, PATH_BYTES_MAX, STAT
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from atoll.sidekick.keeper_link import Link

PATHS_MAX = 8_000_000  # hardlinks need no inodes, so that a quota of inodes bounds nothing
NAME_BYTES_MAX = 255  # of any file system here
BLOCK_ENTRIES = 2_000  # of the longest names that still fit a frame

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_TYPE, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000


def scan(root: int, link: Link, _request: dict[str, Any]) -> None:
    """DATA blocks, END. A folder comes before what is in it; what vanishes meanwhile is left out."""
    link.add(_block(b"", [""], [record(os.fstat(root))]))
    paths = 1
    pending = [b""]
    while pending:
        for folder, names, records in _folder(root, pending.pop(), pending):
            paths += len(names)
            if paths > PATHS_MAX:
                raise Refused("too_large", f"the tree has more than {PATHS_MAX} paths")
            link.add(_block(folder, names, records))
    link.end()


def _block(folder: bytes, names: list[str], records: list[bytes]) -> bytes:
    joined = "\0".join(names).encode(_ENCODING, _ERRORS)
    return b"".join((BLOCK.pack(len(folder), len(names), len(joined)), folder, *records, joined))


def _folder(root: int, folder: bytes, pending: list[bytes]) -> Iterator[tuple[bytes, list[str], list[bytes]]]:
    """Its entries in pieces; folders among them are added to `pending`. Those beyond a tree's bounds get no type."""
    pack = STAT.pack
    prefix = folder + b"/" if folder else b""
    room = PATH_BYTES_MAX - len(prefix) if prefix.count(b"/") < DEPTH_MAX else -1
    is_tight = room < NAME_BYTES_MAX
    names: list[str] = []
    records: list[bytes] = []
    try:
        fd = open_folder(root, folder)
    except OSError as error:
        if error.errno in VANISHED:
            return
        raise refused(error, folder) from None
    try:
        with os.scandir(fd) as found:
            for item in found:
                try:
                    info = item.stat(follow_symlinks=False)
                except OSError:
                    continue  # it is gone
                mode = info.st_mode
                kind = mode & _TYPE
                if is_tight and len(item.name.encode(_ENCODING, _ERRORS)) > room:
                    mode &= ~_TYPE
                elif kind == _FOLDER:
                    pending.append(prefix + item.name.encode(_ENCODING, _ERRORS))
                try:
                    packed = pack(
                        info.st_ino,
                        info.st_size if kind == _REGULAR else 0,
                        info.st_mtime_ns,
                        info.st_ctime_ns,
                        mode,
                        info.st_uid,
                        info.st_gid,
                        info.st_nlink,
                    )
                except struct.error:  # times beyond what 64 bits of nanoseconds hold
                    packed = record(info)
                names.append(item.name)
                records.append(packed)
                if len(names) >= BLOCK_ENTRIES:
                    yield folder, names, records
                    names, records = [], []
    except OSError as error:
        raise refused(error, folder) from None
    finally:
        os.close(fd)
    if names:
        yield folder, names, records


def room(root: int, link: Link, _request: dict[str, Any]) -> None:
    """RESULT {bytes, inodes} that are free for what is written into the tree."""
    told = os.fstatvfs(root)
    inodes = told.f_favail if told.f_files else 1 << 62  # none told: this file system has as many as it likes
    link.result({"bytes": told.f_bavail * told.f_frsize, "inodes": inodes})


def usage(root: int, link: Link, _request: dict[str, Any]) -> None:
    """RESULT {bytes, inodes}: blocks that the tree's files take, each inode once."""
    held = inodes = 0
    linked: set[int] = set()
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            fd = open_folder(root, folder)
        except OSError as error:
            if error.errno in VANISHED:
                continue
            raise refused(error, folder) from None
        try:
            info = os.fstat(fd)
            held, inodes = held + info.st_blocks, inodes + 1
            with os.scandir(fd) as found:
                for item in found:
                    if item.is_dir(follow_symlinks=False):
                        if len(folder) + len(item.name) < PATH_BYTES_MAX - 1024 and folder.count(b"/") < DEPTH_MAX:
                            name = item.name.encode(_ENCODING, _ERRORS)
                            pending.append(folder + b"/" + name if folder else name)
                        continue
                    try:
                        info = item.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if info.st_nlink > 1:
                        if info.st_ino in linked:
                            continue
                        linked.add(info.st_ino)
                    held, inodes = held + info.st_blocks, inodes + 1
        except OSError as error:
            raise refused(error, folder) from None
        finally:
            os.close(fd)
    link.result({"bytes": held * 512, "inodes": inodes})
