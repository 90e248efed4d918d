"""How a keeper reaches what a path names: below the tree's root, and never through a link, whatever a tenant does.

A tenant may have the tree mounted, and change it at any moment: every descriptor that is opened here is one of a
directory in the tree, and names are used relative to such descriptors only.
"""

from __future__ import annotations

import ctypes
import errno
import os

from atoll.sidekick.keeper_wire import PATH_BYTES_MAX, STAT, is_path
from atoll.sidekick.paths import refusal
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

FOLDERS_OPEN_MAX = 32
TIME_MAX = 2**63 - 1

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
_CLOSE_RANGE = 436
_BENEATH_WITHOUT_LINKS = 0x08 | 0x04 | 0x02 | 0x01  # RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS, NO_XDEV
_RENAME_EXCHANGE = 2
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# what a path says when somebody moved, removed or replaced a part of it
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_DIRECTORY = _OpenHow(_DIRECTORY, 0, _BENEATH_WITHOUT_LINKS)


def open_folder(root: int, path: bytes) -> int:
    """A descriptor of the directory; OSError, with one of VANISHED when there is no directory."""
    while True:
        fd: int = _libc.syscall(
            _OPENAT2, root, path or b".", ctypes.byref(_HOW_DIRECTORY), ctypes.sizeof(_HOW_DIRECTORY)
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))


def exchange(folder: int, one: bytes, other: bytes) -> None:
    """Both names of the folder change places in one step."""
    if _libc.renameat2(folder, one, folder, other, _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync(root: int) -> None:
    """Everything that was written to the tree's file system is on its disk."""
    if _libc.syncfs(root) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def close_range(first: int, last: int) -> None:
    """Close all descriptors from `first` to `last`, if there are any."""
    if first <= last and _libc.syscall(_CLOSE_RANGE, first, last, 0) != 0:
        os.closerange(first, min(last, 1 << 16) + 1)


class Folders:
    """Open directories of a tree by their paths, so that a run of neighbours costs one resolution."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._open: dict[bytes, int] = {}

    def __enter__(self) -> Folders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()

    def of(self, path: bytes) -> tuple[int, bytes]:
        """(the descriptor of its parent, its name there); the root is `.` in itself. OSError as `open_folder`."""
        parent, _, name = path.rpartition(b"/")
        if not parent:
            return self.root, name or b"."
        folder = self._open.get(parent)
        if folder is None:
            if len(self._open) >= FOLDERS_OPEN_MAX:
                self.forget()
            folder = self._open[parent] = open_folder(self.root, parent)
        return folder, name

    def keep(self, path: bytes, folder: int) -> None:
        """It is open already."""
        if len(self._open) >= FOLDERS_OPEN_MAX:
            self.forget()
        old = self._open.pop(path, -1)
        if old >= 0:
            os.close(old)
        self._open[path] = folder

    def forget(self) -> None:
        """Close all: what was at their paths may be something else now."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def record(info: os.stat_result) -> bytes:
    """The packed STAT of it; times that no tree can hold are cut. Only files have a size."""
    size = info.st_size if info.st_mode & 0o170000 == 0o100000 else 0
    return STAT.pack(
        info.st_ino,
        size,
        max(-TIME_MAX, min(info.st_mtime_ns, TIME_MAX)),
        max(-TIME_MAX, min(info.st_ctime_ns, TIME_MAX)),
        info.st_mode,
        info.st_uid,
        info.st_gid,
        info.st_nlink,
    )


def checked(path: bytes) -> bytes:
    """A path that may be used; Refused otherwise. The root is one."""
    if path and not is_path(path):
        raise Refused(
            "bad_request",
            f"path {os.fsdecode(path)!r}: expected a relative one of at most {PATH_BYTES_MAX} bytes, without empty "
            "parts, '.', '..' and NUL",
            "path",
        )
    return path


def refused(error: OSError, path: bytes) -> Refused:
    """What the system said about a path, as the client is told it."""
    if error.errno in VANISHED:
        return Refused("conflict", f"path {os.fsdecode(path)!r}: its parent is no directory of the tree", "path")
    return refusal(error, os.fsdecode(path))
