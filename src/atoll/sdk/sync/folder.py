"""A local folder that a workspace is written into. Every step down is taken without following links.

So a workspace cannot reach anything outside of the folder, whatever its paths and links say, nor can somebody who
swaps a directory for a link meanwhile.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from bisect import bisect_right
from collections.abc import Callable
from typing import TypeVar

from atoll.domain.chunk_ids import has_holes
from atoll.domain.tree import Entry, EntryKind
from atoll.sdk.sync.contents import Stamp, stamp_of
from atoll.sdk.sync.ignore import TEMPORARY

T = TypeVar("T")
NO_WAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # a directory on the way is none, or not any more
IN_USE = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """Close it in the end: directories get their modes and times then. Every call may raise OSError."""

    def __init__(self, path: str) -> None:
        self._open: list[tuple[bytes, int]] = [(b"", os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]
        self._modes: dict[bytes, int] = {}  # of directories that were opened up, or are new
        self._times: dict[bytes, int] = {}
        self._temporary = TEMPORARY + secrets.token_hex(8).encode()
        self._made = 0  # temporary names

    def close(self) -> None:
        for path in sorted(self._modes.keys() | self._times.keys(), reverse=True):
            try:
                self._finish(path)
            except OSError:
                pass  # it is gone, or something else stands there now
        while self._open:
            os.close(self._open.pop()[1])

    def stamp(self, path: bytes) -> Stamp | None:
        """What stands there; None: nothing."""
        status = self.status(path)
        return None if status is None else stamp_of(status)

    def status(self, path: bytes) -> os.stat_result | None:
        try:
            parent, name = self._place(path)
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_WAY:
                raise
            return None

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        """Bytes of a regular file; fewer when it is shorter."""
        parent, name = self._place(path)
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            return os.pread(file, length, offset)
        finally:
            os.close(file)

    def make_directory(self, entry: Entry) -> None:
        """Make it, or give the one there its mode."""
        parent, name = self._place(entry.path)
        self._clear(parent, name, keep=stat.S_ISDIR)
        try:
            self._in_parent(entry.path, lambda: os.mkdir(name, 0o700, dir_fd=parent))
        except FileExistsError:
            pass
        self._modes[entry.path] = entry.mode
        self._times[entry.path] = entry.mtime_ns
        child = self._directory(entry.path)
        _set_xattrs(child, entry)

    def directory_times(self, path: bytes, mtime_ns: int) -> None:
        """Which times it gets in the end."""
        self._times[path] = mtime_ns

    def new_file(self, path: bytes) -> tuple[bytes, int]:
        """(its name, descriptor) of a temporary file beside `path`."""
        parent, _ = self._place(path)
        name = self._new_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return name, self._in_parent(path, lambda: os.open(name, flags, 0o600, dir_fd=parent))

    def finish_file(self, name: bytes, file: int, entry: Entry) -> None:
        """Put a temporary file in place of whatever stood at the entry's path."""
        if entry.holes or has_holes(entry.chunks):
            os.ftruncate(file, entry.size)
        if entry.xattrs:
            _set_xattrs(file, entry)
        _set_mode_and_times(file, entry)
        self._replace(name, entry.path)

    def drop_file(self, name: bytes, path: bytes) -> None:
        try:
            parent, _ = self._place(path)
            os.unlink(name, dir_fd=parent)
        except OSError:
            pass  # its directory is gone, and so is it

    def change_metadata(self, entry: Entry) -> bool:
        """Of a file whose contents stay. False: it must be written anew, as it has other names or cannot be opened."""
        parent, name = self._place(entry.path)
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except PermissionError:
            return False
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                return False
            _set_xattrs(file, entry)
            _set_mode_and_times(file, entry)
            return True
        finally:
            os.close(file)

    def make_other(self, entry: Entry) -> None:
        """A symlink, a further name or a named pipe."""
        parent, _ = self._place(entry.path)
        name = self._new_name()
        if entry.kind is EntryKind.SYMLINK:
            self._in_parent(entry.path, lambda: os.symlink(entry.target, name, dir_fd=parent))
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        elif entry.kind is EntryKind.FIFO:
            self._in_parent(entry.path, lambda: os.mkfifo(name, 0o600, dir_fd=parent))
            os.chmod(name, entry.mode, dir_fd=parent)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)
        else:
            self._link(entry, name)
        self._replace(name, entry.path, linked=entry.kind is EntryKind.HARDLINK)

    def remove(self, path: bytes) -> bool:
        """What stands there; False for a directory in which something is left."""
        parent, name = self._place(path)
        status = self.status(path)
        if status is None:
            return True
        if not stat.S_ISDIR(status.st_mode):
            self._in_parent(path, lambda: os.unlink(name, dir_fd=parent))
            return True
        self._leave(path)
        try:
            self._in_parent(path, lambda: os.rmdir(name, dir_fd=parent))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            return False
        self._modes.pop(path, None)
        self._times.pop(path, None)
        return True

    def _link(self, entry: Entry, name: bytes) -> None:
        # The descriptor of one parent must outlive the way to the other.
        parent, source = self._place(entry.target)
        parent = os.dup(parent)
        try:
            there, _ = self._place(entry.path)
            self._in_parent(
                entry.path,
                lambda: os.link(source, name, src_dir_fd=parent, dst_dir_fd=there, follow_symlinks=False),
            )
        finally:
            os.close(parent)

    def _replace(self, name: bytes, path: bytes, *, linked: bool = False) -> None:
        parent, final = self._place(path)
        try:
            os.rename(name, final, src_dir_fd=parent, dst_dir_fd=parent)
        except IsADirectoryError:
            self._clear(parent, final, keep=lambda mode: not stat.S_ISDIR(mode))
            os.rename(name, final, src_dir_fd=parent, dst_dir_fd=parent)
        if linked:
            try:  # rename leaves two names of one file as they are
                os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                pass

    def _new_name(self) -> bytes:
        self._made += 1
        return b"%b-%d" % (self._temporary, self._made)

    def _clear(self, parent: int, name: bytes, *, keep: Callable[[int], bool]) -> None:
        """Remove what stands there, unless it is of a kind to keep. OSError for a directory that is not empty."""
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if keep(mode):
            return
        if stat.S_ISDIR(mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """(descriptor of its directory, its name). The descriptor is good until the next call."""
        parent, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise ValueError(f"{path!r} is no path of a tree")
        return self._directory(parent), name

    def _directory(self, path: bytes) -> int:
        """The descriptors of a path's directories are kept: what comes next is often beside it."""
        while not _is_below(path, self._open[-1][0]):
            os.close(self._open.pop()[1])
        at, descriptor = self._open[-1]
        for part in path[len(at) :].strip(b"/").split(b"/") if path != at else ():
            if part in (b"", b".", b".."):
                raise ValueError(f"{path!r} is no path of a tree")
            at = at + b"/" + part if at else part
            descriptor = self._enter(descriptor, part, at)
            self._open.append((at, descriptor))
        return descriptor

    def _enter(self, parent: int, name: bytes, path: bytes) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except PermissionError:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise
            self._modes.setdefault(path, stat.S_IMODE(status.st_mode))
            os.chmod(name, 0o700, dir_fd=parent)  # a link that comes in between is refused by the next line
            return os.open(name, _DIRECTORY, dir_fd=parent)

    def _in_parent(self, path: bytes, step: Callable[[], T]) -> T:
        """Take a step that writes into a path's directory, which is opened up when that is needed."""
        try:
            return step()
        except PermissionError:
            parent = path.rpartition(b"/")[0]
            directory = self._directory(parent)
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            if mode & 0o300 == 0o300:
                raise
            self._modes.setdefault(parent, mode)
            os.fchmod(directory, mode | 0o700)
            return step()

    def _leave(self, path: bytes) -> None:
        """Close the descriptors of a directory and of all below it."""
        while len(self._open) > 1 and _is_below(self._open[-1][0], path):
            os.close(self._open.pop()[1])

    def _finish(self, path: bytes) -> None:
        if path in self._modes:
            directory = self._directory(path)
            os.fchmod(directory, self._modes[path])
        if path in self._times:
            mtime_ns = self._times[path]
            os.utime(self._directory(path), ns=(mtime_ns, mtime_ns))


def write_chunk(file: int, entry: Entry, start: int, data: bytes) -> None:
    """The chunk of a new file that begins at `start`, its holes left out."""
    end = start + len(data)
    at = start
    first = bisect_right(entry.holes, (start, 0))
    for hole, length in entry.holes[max(0, first - 1) :]:
        if hole >= end:
            break
        if hole + length <= at:
            continue
        _write_all(file, data[at - start : max(hole, at) - start], at)
        at = min(hole + length, end)
    _write_all(file, data[at - start :], at)


def _write_all(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _is_below(path: bytes, folder: bytes) -> bool:
    return not folder or path == folder or path.startswith(folder + b"/")


def _set_mode_and_times(file: int, entry: Entry) -> None:
    os.fchmod(file, entry.mode)
    os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))


def _set_xattrs(place: int, entry: Entry) -> None:
    """Exactly these, as far as the file system takes them."""
    try:
        there = {name for name in os.listxattr(place) if name.startswith("user.")}
        wanted = {os.fsdecode(name): value for name, value in entry.xattrs if name.startswith(b"user.")}
        for name in there - wanted.keys():
            os.removexattr(place, name)
        for name, value in wanted.items():
            os.setxattr(place, name, value)
    except OSError:
        pass
