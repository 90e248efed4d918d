"""Look at a folder: its entries as a workspace has them. Only what changed since the last look is read."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from atoll.domain.errors import InvalidInput
from atoll.domain.tree import DEPTH_MAX, PATH_BYTES_MAX, Entry, EntryKind
from atoll.sdk.sync.contents import Stamp, read_contents, stamp_of, xattrs_of
from atoll.sdk.sync.ignore import TEMPORARY, Rules

THREADS = min(8, (os.cpu_count() or 1) + 1)
FRESH_NS = 20_000_000  # what changed so shortly before a look may change again without a trace
_READ_AT_ONCE = 64  # small files that one thread reads before it takes others

Known = Mapping[bytes, tuple[Stamp, Entry]]
_Found = tuple[bytes, os.stat_result]


@dataclass(slots=True)
class Scan:
    """A folder at one moment. The root itself is no part of it."""

    entries: dict[bytes, Entry] = field(default_factory=dict[bytes, Entry])  # sorted by path
    stamps: dict[bytes, Stamp] = field(default_factory=dict[bytes, Stamp])
    unchanged: dict[bytes, tuple[Stamp, Entry]] = field(default_factory=dict[bytes, tuple[Stamp, Entry]])  # as known
    fresh: set[bytes] = field(default_factory=set[bytes])  # whose stamps prove nothing
    left_out: dict[bytes, str] = field(default_factory=dict[bytes, str])  # path -> why
    leftovers: list[bytes] = field(default_factory=list[bytes])  # of a sync that was killed


def scan(folder: str, rules: Rules, known: Known) -> Scan:
    """InvalidInput when the folder is none."""
    if not os.path.isdir(folder):
        raise InvalidInput(f"{folder} is no folder", field="folder")
    root = os.path.join(os.fsencode(folder), b"")
    fresh_ns = time.time_ns() - FRESH_NS
    result = Scan()
    unread: list[_Found] = []
    linked: dict[tuple[int, int], list[bytes]] = {}
    found: dict[bytes, Entry] = {}
    for path, status in _walk(root, rules, result):
        result.stamps[path] = stamp = Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if stamp.ctime_ns > fresh_ns:
            result.fresh.add(path)
        regular = stat.S_ISREG(status.st_mode)
        if regular and status.st_nlink > 1:
            linked.setdefault((status.st_dev, status.st_ino), []).append(path)
        before = known.get(path)
        if before is not None and before[0] == stamp and before[1].kind is not EntryKind.HARDLINK:
            result.unchanged[path] = before
            found[path] = before[1]
        elif regular:
            unread.append((path, status))
        else:
            made = _entry_of(root, path, status)
            if made is None:
                result.left_out[path] = "it is neither a file, a directory, a link nor a named pipe"
            else:
                found[path] = made
    _read(root, _without_links(unread, linked, found), result, found)
    for paths in linked.values():
        _join(paths, found)
    result.entries = {path: found[path] for path in sorted(found)}
    return result


def _walk(root: bytes, rules: Rules, result: Scan) -> Iterator[_Found]:
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            listed = os.scandir(root + folder)
        except OSError as error:
            if not folder:
                raise
            result.left_out[folder[:-1]] = error.strerror or str(error)
            continue
        judged = rules.count_in(folder[:-1])
        deep = folder.count(b"/") >= DEPTH_MAX
        with listed:
            for item in listed:
                name = item.name
                path = folder + name
                directory = item.is_dir(follow_symlinks=False)
                if (judged or name.startswith(b".")) and rules.rejects(path, directory):
                    if name.startswith(TEMPORARY):
                        result.leftovers.append(path)
                    continue
                try:
                    status = item.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
                if deep or len(path) > PATH_BYTES_MAX:
                    result.left_out[path] = "its path is too long"
                    continue
                yield path, status
                if directory:
                    folders.append(path + b"/")


def _entry_of(root: bytes, path: bytes, status: os.stat_result) -> Entry | None:
    """Of anything but a regular file."""
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, EntryKind.DIRECTORY, mode, status.st_mtime_ns, xattrs=xattrs_of(root + path))
    if stat.S_ISLNK(status.st_mode):
        try:
            return Entry(path, EntryKind.SYMLINK, 0, status.st_mtime_ns, target=os.readlink(root + path))
        except OSError:
            return None
    if stat.S_ISFIFO(status.st_mode):
        return Entry(path, EntryKind.FIFO, mode, status.st_mtime_ns)
    return None


def _without_links(
    unread: list[_Found], linked: dict[tuple[int, int], list[bytes]], found: dict[bytes, Entry]
) -> list[_Found]:
    """One name of each file is enough to read it."""
    chosen: list[_Found] = []
    taken: set[tuple[int, int]] = {key for key, paths in linked.items() if any(path in found for path in paths)}
    for path, status in unread:
        key = (status.st_dev, status.st_ino)
        if key in linked:
            if key in taken:
                continue
            taken.add(key)
        chosen.append((path, status))
    return chosen


def _read(root: bytes, files: list[_Found], result: Scan, found: dict[bytes, Entry]) -> None:
    def read(some: list[_Found]) -> list[tuple[bytes, Entry | None, Stamp | None, str]]:
        return [_read_one(root, path) for path, _ in some]

    if not files:
        return
    groups = [files[at : at + _READ_AT_ONCE] for at in range(0, len(files), _READ_AT_ONCE)]
    if len(groups) < THREADS:
        each = -(-len(files) // THREADS)
        groups = [files[at : at + each] for at in range(0, len(files), each)]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="atoll-scan") as pool:
        for group in pool.map(read, groups):
            for path, entry, stamp, why in group:
                if entry is not None and stamp is not None:
                    found[path] = entry
                    result.stamps[path] = stamp
                elif why:
                    result.left_out[path] = why


def _read_one(root: bytes, path: bytes) -> tuple[bytes, Entry | None, Stamp | None, str]:
    try:
        status, chunks, holes, xattrs = read_contents(root + path)
    except FileNotFoundError:
        return path, None, None, ""
    except OSError as error:
        return path, None, None, error.strerror or str(error)
    mode = stat.S_IMODE(status.st_mode)
    size = status.st_size
    entry = Entry(path, EntryKind.FILE, mode, status.st_mtime_ns, size=size, chunks=chunks, holes=holes, xattrs=xattrs)
    return path, entry, stamp_of(status), ""


def _join(paths: list[bytes], found: dict[bytes, Entry]) -> None:
    """The names of one file: the first has its contents, the others are links to it."""
    contents = next((found[path] for path in paths if path in found), None)
    if contents is None:
        return
    first, *others = sorted(paths)
    found[first] = contents._replace(path=first)
    for path in others:
        found[path] = Entry(path, EntryKind.HARDLINK, 0, 0, target=first)
