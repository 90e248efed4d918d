"""Plain tree: a revision's files written into a new folder of the host's, for programs of the operator's to read.

The folder is new, root's alone and written by nobody else; each step into it is taken by name from an open folder and
follows no link. What could do harm outside of a sandbox is left out: setuid and setgid bits, owners, extended
attributes, pipes, and symbolic links that lead out of the tree. Blocking: threads call it.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from atoll.domain.tree import Entry, EntryKind

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODES = 0o777

_libc = ctypes.CDLL(None, use_errno=True)


class Folder:
    """Folders below one, opened by the paths of entries; those on the way to the last one stay open."""

    def __init__(self, path: Path) -> None:
        self.top = os.open(path, _FOLDER)
        self._open: list[tuple[bytes, int]] = []

    def at(self, path: bytes) -> tuple[int, bytes]:
        """(the folder that an entry lies in, open; its name there). OSError when it is none, or a link."""
        *parents, name = path.split(b"/")
        same = 0
        while same < min(len(parents), len(self._open)) and self._open[same][0] == parents[same]:
            same += 1
        self._close(same)
        for parent in parents[same:]:
            above = self._open[-1][1] if self._open else self.top
            self._open.append((parent, os.open(parent, _FOLDER, dir_fd=above)))
        return (self._open[-1][1] if self._open else self.top), name

    def close(self) -> None:
        self._close(0)
        os.close(self.top)

    def _close(self, kept: int) -> None:
        while len(self._open) > kept:
            os.close(self._open.pop()[1])


class PlainTree:
    """One copy being made; a context manager. `lay`, then each of the files that it returns, then `link` and `sync`."""

    def __init__(self, path: Path, old: Path | None) -> None:
        path.mkdir(mode=0o700)
        self._new = Folder(path)
        try:
            self._old = None if old is None else Folder(old)
        except OSError:
            self._new.close()
            raise
        self._file = -1
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for folder in (self._new, self._old):
            if folder is not None:
                folder.close()
        if self._file >= 0:
            os.close(self._file)

    def lay(self, entries: Iterable[Entry], before: Mapping[bytes, Entry]) -> list[Entry]:
        """Folders, links and the files that the old copy has; returns those that it has not. `before` is of that."""
        entries = list(entries)
        linked = {entry.target for entry in entries if entry.kind is EntryKind.HARDLINK}
        missing: list[Entry] = []
        for entry in entries:
            if not entry.path:
                continue
            if entry.kind is EntryKind.FILE:
                # One with several names is written again: as many as a file may have, it could get no more.
                if entry.path in linked or before.get(entry.path) != entry or not self._taken_over(entry):
                    missing.append(entry)
            elif entry.kind is EntryKind.DIRECTORY:
                above, name = self._new.at(entry.path)
                os.mkdir(name, 0o700, dir_fd=above)
                os.chmod(name, 0o700 | entry.mode & _MODES, dir_fd=above)  # new here, and no link
            elif entry.kind is EntryKind.SYMLINK and stays_inside(entry):
                above, name = self._new.at(entry.path)
                os.symlink(entry.target, name, dir_fd=above)
        return missing

    def begin(self, entry: Entry) -> None:
        """The file whose chunks come next."""
        above, name = self._new.at(entry.path)
        self._file = os.open(name, _NEW, 0o600, dir_fd=above)
        os.ftruncate(self._file, entry.size)

    def write(self, at: int, data: bytes) -> None:
        """Contents of it, from that byte on."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def end(self, entry: Entry) -> None:
        os.fchmod(self._file, entry.mode & _MODES)
        os.utime(self._file, ns=(entry.mtime_ns, entry.mtime_ns))
        os.close(self._file)
        self._file = -1

    def link(self, entries: Iterable[Entry]) -> None:
        """Further names of files."""
        for entry in entries:
            if entry.kind is EntryKind.HARDLINK:
                above, name = self._new.at(entry.path)
                # The first name's folder is opened apart: `at` closes those that are not on the way.
                above = os.dup(above)
                try:
                    there, first = self._new.at(entry.target)
                    os.link(first, name, src_dir_fd=there, dst_dir_fd=above, follow_symlinks=False)
                finally:
                    os.close(above)

    def sync(self) -> None:
        """All of it is on the disk."""
        if _libc.syncfs(self._new.top) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _taken_over(self, entry: Entry) -> bool:
        """Whether the file is the old copy's now: there it must be as we left it."""
        if self._old is None:
            return False
        above, name = self._new.at(entry.path)
        try:
            there, _ = self._old.at(entry.path)
            is_now = os.stat(name, dir_fd=there, follow_symlinks=False)
            if (is_now.st_mode, is_now.st_size, is_now.st_mtime_ns) != (
                stat.S_IFREG | entry.mode & _MODES,
                entry.size,
                entry.mtime_ns,
            ):
                return False
            os.link(name, name, src_dir_fd=there, dst_dir_fd=above, follow_symlinks=False)
        except OSError:
            return False
        return True


def stays_inside(entry: Entry) -> bool:
    """Whether a symbolic link leads to somewhere in its tree, whatever other such links stand on the way: it is
    relative, and goes up only at its beginning and not beyond the top."""
    parts = [part for part in entry.target.split(b"/") if part not in (b"", b".")]
    ups = 0
    while ups < len(parts) and parts[ups] == b"..":
        ups += 1
    return not entry.target.startswith(b"/") and ups <= entry.path.count(b"/") and b".." not in parts[ups:]
