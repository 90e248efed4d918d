"""Applier: makes what entries say stand in a tree, at the cost of few system calls a file.

What is new is made under its own name; what replaces something is made beside it and renamed over it. Folders get
their owner, mode and times at the end, when nothing is made in them any more.
"""

from __future__ import annotations

import errno
import os
import stat

from atoll.sidekick.keeper_paths import VANISHED, Folders, checked, open_folder, record, refused
from atoll.sidekick.keeper_replace import put, remove, temporary
from atoll.sidekick.keeper_wire import STAT
from atoll.sidekick.protocol import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Meta(NamedTuple):
        """What a path is to be."""

        kind: bytes
        mode: int
        uid: int
        gid: int
        mtime_ns: int
        size: int
        target: bytes
        xattrs: tuple[tuple[bytes, bytes], ...]

else:
    from collections import namedtuple

    Meta = namedtuple("Meta", "kind mode uid gid mtime_ns size target xattrs")

TOLD_MAX = 100
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Applier:
    """Steps done so far: `records` has the STAT of each written path, `told` what could not be kept of which."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._user, self._group = os.geteuid(), os.getegid()
        self.records = bytearray()
        self.told: list[tuple[str, str]] = []
        self._made: dict[bytes, tuple[list[int], Meta]] = {}  # folders, with where their records belong
        # the file whose contents come now
        self._fd = -1
        self._path = b""
        self._meta: Meta | None = None
        self._folder = -1
        self._name = b""  # as which it was made
        self._beside: bytes | None = None  # its own name, when it was made under a temporary one
        self._at = 0
        self._skipped = False
        os.umask(0)  # modes are what entries say

    def write(self, path: bytes, meta: Meta) -> None:
        """Make what `meta` says stand at the path. Of files `data` and `skip` bring the contents."""
        self._end_file()
        try:
            if meta.kind == b"f":
                self._begin_file(path, meta)
            elif meta.kind == b"d":
                self._make_folder(path, meta)
            else:
                self._make_other(path, meta)
        except OSError as error:
            raise refused(error, path) from None

    def data(self, data: bytes | memoryview) -> None:
        self._advance(len(data))
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            raise refused(error, self._path) from None

    def skip(self, length: int) -> None:
        self._advance(length)
        self._skipped = True
        try:
            os.lseek(self._fd, length, os.SEEK_CUR)
        except OSError as error:
            raise refused(error, self._path) from None

    def remove(self, path: bytes) -> None:
        self._end_file()
        if not path:
            raise Refused("bad_request", "path: the root cannot be removed", "path")
        try:
            folder, name = self._folders.of(path)
            remove(folder, name)
        except OSError as error:
            if error.errno not in VANISHED:
                raise refused(error, path) from None
        self._folders.forget()

    def finish(self) -> None:
        """The last file is done, and folders become what they shall be, the deepest first."""
        self._end_file()
        self._folders.forget()
        for path, (places, meta) in reversed(self._made.items()):
            try:
                fd = open_folder(self._folders.root, path)
            except OSError as error:
                if error.errno in VANISHED:
                    continue  # a later step, or somebody inside, put something else there: its record is zeros
                raise refused(error, path) from None
            try:
                seen = record(self._dress(fd, path, meta))
                for at in places:
                    self.records[at : at + STAT.size] = seen
            except OSError as error:
                raise refused(error, path) from None
            finally:
                os.close(fd)

    def drop_unfinished(self) -> None:
        """Whatever ended this early: nothing half-written stays."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        try:
            os.unlink(self._name, dir_fd=self._folder)
        except OSError:
            pass

    def stands(self, path: bytes) -> bool:
        """Whether there is anything at the path."""
        try:
            folder, name = self._folders.of(path)
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise refused(error, path) from None
        return True

    # files

    def _begin_file(self, path: bytes, meta: Meta) -> None:
        self._folder, self._name = self._folders.of(path)
        self._beside = None
        mode = meta.mode & 0o777  # the bits above it go with a change of owner: they are set after that
        try:
            self._fd = os.open(self._name, _NEW, mode, dir_fd=self._folder)
        except FileExistsError:
            self._beside, self._name = self._name, temporary()
            self._fd = os.open(self._name, _NEW, mode, dir_fd=self._folder)
        self._path, self._meta, self._at, self._skipped = path, meta, 0, False

    def _advance(self, length: int) -> None:
        if self._fd < 0 or self._meta is None:
            raise Refused("bad_request", "steps: contents without a file", "steps")
        self._at += length
        if self._at > self._meta.size:
            raise self._wrong_size("more")

    def _end_file(self) -> None:
        meta = self._meta
        if self._fd < 0 or meta is None:
            return
        if self._at != meta.size:
            raise self._wrong_size(f"only {self._at}")
        try:
            if self._skipped:
                os.ftruncate(self._fd, meta.size)
            info = self._dress(self._fd, self._path, meta)
            if self._beside is not None:
                if put(self._folder, self._name, self._beside):
                    self._folders.forget()
                info = os.fstat(self._fd)  # a rename is a change too
        except OSError as error:
            raise refused(error, self._path) from None
        os.close(self._fd)
        self._fd = -1
        self.records += record(info)

    def _wrong_size(self, came: str) -> Refused:
        size = self._meta.size if self._meta is not None else 0
        return Refused("bad_request", f"path {os.fsdecode(self._path)!r}: {size} bytes, but {came} came", "size")

    # everything else

    def _make_folder(self, path: bytes, meta: Meta) -> None:
        if path:
            self._folders.keep(path, self._open_or_make(path, meta))
        places = self._made[path][0] if path in self._made else []
        self._made[path] = ([*places, len(self.records)], meta)
        self.records += bytes(STAT.size)

    def _open_or_make(self, path: bytes, meta: Meta) -> int:
        folder, name = self._folders.of(path)
        mode = meta.mode & 0o777 | 0o700
        try:
            os.mkdir(name, mode, dir_fd=folder)
        except FileExistsError:
            try:
                return os.open(name, _FOLDER, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
            beside = temporary()
            os.mkdir(beside, mode, dir_fd=folder)
            put(folder, beside, name)
        fd = os.open(name, _FOLDER, dir_fd=folder)
        self._own(fd, path, meta)
        return fd

    def _make_other(self, path: bytes, meta: Meta) -> None:
        """A symlink, a hardlink or a FIFO."""
        folder, name = self._folders.of(path)
        if meta.kind not in (b"l", b"h", b"p"):
            raise Refused("bad_request", f"path {os.fsdecode(path)!r}: there is no kind {meta.kind!r}", "kind")
        try:
            self._make_at(folder, name, path, meta)
        except FileExistsError:
            beside = temporary()
            self._make_at(folder, beside, path, meta)
            folder = self._folders.of(path)[0]
            replaced = put(folder, beside, name)
            if meta.kind == b"h":
                remove(folder, beside)  # rename does nothing when both names are the same file's already
            if replaced:
                self._folders.forget()
        folder = self._folders.of(path)[0]  # it may have been closed to make room for that of a link's target
        self.records += record(os.stat(name, dir_fd=folder, follow_symlinks=False))

    def _make_at(self, folder: int, name: bytes, path: bytes, meta: Meta) -> None:
        if meta.kind == b"h":
            self._link(folder, name, path, checked(meta.target))
            return
        if meta.kind == b"l":
            if b"\0" in meta.target:
                raise Refused("bad_request", f"path {os.fsdecode(path)!r}: there is a NUL in its target", "steps")
            os.symlink(meta.target, name, dir_fd=folder)
        else:
            os.mkfifo(name, meta.mode, dir_fd=folder)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if (info.st_uid, info.st_gid) != (meta.uid, meta.gid):
            try:
                os.chown(name, meta.uid, meta.gid, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                self._tell(path, "owner", error)
        os.utime(name, ns=(meta.mtime_ns, meta.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _link(self, folder: int, name: bytes, path: bytes, target: bytes) -> None:
        try:
            there, target_name = self._folders.of(target)
            info = os.stat(target_name, dir_fd=there, follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode) and not stat.S_ISLNK(info.st_mode):
                raise FileNotFoundError
            folder = self._folders.of(path)[0]
            os.link(target_name, name, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise
            message = f"path {os.fsdecode(path)!r}: its target {os.fsdecode(target)!r} is no file of the tree"
            if error.errno in (errno.EMLINK, errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refused("conflict", message, "target") from None

    def _dress(self, fd: int, path: bytes, meta: Meta) -> os.stat_result:
        """Owner, mode, attributes and times of a file or folder; what it is then."""
        folder = meta.kind == b"d"
        foreign = (meta.uid, meta.gid) != (self._user, self._group)
        if foreign:
            self._own(fd, path, meta)
        if meta.xattrs or folder:
            self._attribute(fd, path, meta)
        os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))
        info = os.fstat(fd)
        if not foreign and (info.st_uid, info.st_gid) != (meta.uid, meta.gid):  # its folder hands its group on
            self._own(fd, path, meta)
            info = os.fstat(fd)
        if stat.S_IMODE(info.st_mode) != meta.mode:
            os.fchmod(fd, meta.mode)
            info = os.fstat(fd)
        return info

    def _own(self, fd: int, path: bytes, meta: Meta) -> None:
        try:
            os.fchown(fd, meta.uid, meta.gid)
        except OSError as error:
            self._tell(path, "owner", error)

    def _attribute(self, fd: int, path: bytes, meta: Meta) -> None:
        if meta.kind == b"d":
            self._clear_attributes(fd, {name for name, _ in meta.xattrs})
        for name, value in meta.xattrs:
            try:
                os.setxattr(fd, name, value)
            except (OSError, ValueError) as error:
                self._tell(path, f"attribute {os.fsdecode(name)!r}", error)

    def _clear_attributes(self, fd: int, wanted: set[bytes]) -> None:
        """A folder that was there may have others."""
        try:
            names = os.listxattr(fd)
        except OSError:
            return
        for name in names:
            if name.startswith("user.") and os.fsencode(name) not in wanted:
                try:
                    os.removexattr(fd, name)
                except OSError:
                    pass  # it is gone

    def _tell(self, path: bytes, what: str, error: Exception) -> None:
        if len(self.told) < TOLD_MAX:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.told.append((os.fsdecode(path), f"its {what} could not be kept: {reason}"))
