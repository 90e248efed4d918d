"""A folder whose files are whole and durable: written under another name, synced, renamed, and their folders synced.

    FOLDER/objects/<key>       whole objects
    FOLDER/partial/<random>    what is being written, locked by its writer; `prepare` removes what nobody writes

FOLDER may be given by a symbolic link; nothing in it is one. What is no regular file is no object: reading it is an
Irregular, listings leave it out.

`LocalDisk` calls it from threads; everything here blocks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from atoll.blobs.base import Blob
from atoll.domain.crash import point
from atoll.domain.errors import InvalidInput

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRIES = 100  # to place a file while others remove its folder because it is empty


class Irregular(OSError):
    """A symbolic link, a device or the like lies where an object or its folder would."""


class Partial:
    """A file of ours that nobody else sees; made at the first write."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / secrets.token_hex(16)
        self.bytes = 0
        self._file: int | None = None

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self.bytes += len(view)
        file = self._open()
        while view:
            view = view[os.write(file, view) :]

    def sync(self) -> None:
        file = self._open()
        point("blobs.put.written")
        os.fsync(file)
        point("blobs.put.synced")

    def close(self) -> None:
        """Remove it, unless it has got its name; a second call does nothing."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        while self._file is None:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            # A store that started just between the two took it for a leftover.
            if os.fstat(file).st_nlink:
                self._file = file
            else:
                os.close(file)
        return self._file


class DurableFolder:
    """Its methods may be called from any number of threads and processes at a time; each raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = folder / "objects"
        self.partial = folder / "partial"
        self._durable: set[Path] = set()  # folders whose own entries are surely on the disk

    def check(self) -> None:
        """FileNotFoundError unless there are objects to read."""
        os.close(os.open(self.objects, _PATH))

    def prepare(self) -> None:
        """Make what is missing, remove what a killed writer left, and see that one may write."""
        missing = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync(folder.parent)
        self._make(self.objects)
        self._make(self.partial)
        for name in os.listdir(self.partial):
            _remove_if_nobody_writes_it(self.partial / name)
        probe = Partial(self.partial)
        probe.write(b"")
        probe.close()

    def put(self, key: str, data: bytes, cancelled: Callable[[], bool]) -> None:
        partial = Partial(self.partial)
        try:
            partial.write(data)
            self.place(partial, key, cancelled)
        finally:
            partial.close()

    def place(self, partial: Partial, key: str, cancelled: Callable[[], bool]) -> None:
        """Give the synced file its name, in one step and for ever; not when it was cancelled before that."""
        path = self.objects / key
        partial.sync()
        for _ in range(_TRIES):
            try:
                self._make(path.parent)
                if cancelled():
                    return
                os.rename(partial.path, path)
                break
            except FileNotFoundError:
                self._durable -= {path.parent, *path.parent.parents}
            except (NotADirectoryError, IsADirectoryError):
                raise InvalidInput(f"{key!r} is, or lies in, what is already another blob", field="key") from None
        else:
            raise FileNotFoundError(errno.ENOENT, f"{path.parent} is removed as often as it is made")
        point("blobs.put.renamed")
        with suppress(FileNotFoundError):  # deleted already, with its folder
            _sync(path.parent)

    def open(self, key: str) -> FileIO:
        """The object, for reading. Irregular."""
        *folders, name = key.split("/")
        at = os.open(self.objects, _PATH)
        try:
            for folder in folders:
                at = _enter(at, folder, key)
            try:
                file = os.open(name, _FILE, dir_fd=at)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):
                    raise Irregular(error.errno, f"{key} is no regular file") from None
                raise
        finally:
            os.close(at)
        kind = os.fstat(file).st_mode
        if not stat.S_ISREG(kind):
            os.close(file)
            if stat.S_ISDIR(kind):
                raise FileNotFoundError(key)
            raise Irregular(errno.EINVAL, f"{key} is no regular file")
        return FileIO(file)

    def read(self, key: str) -> bytes:
        with self.open(key) as file:
            return file.readall()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """FileNotFoundError also when the object is shorter than that."""
        with self.open(key) as file:
            if offset + length > os.fstat(file.fileno()).st_size:
                raise FileNotFoundError(key)
            parts: list[bytes] = []
            while length and (part := os.pread(file.fileno(), length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)

    def delete(self, key: str) -> None:
        """Remove it, and folders that held nothing else. After a power cut it may be there again."""
        path = self.objects / key
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            if path.is_file():
                raise
            return
        for folder in path.parents:
            if folder == self.objects:
                return
            self._durable.discard(folder)
            try:
                folder.rmdir()
            except OSError:
                return

    def walk(self, prefix: str) -> Iterator[Blob]:
        """Objects whose keys begin with the prefix; those that appear or vanish meanwhile may be missing."""
        folders = [prefix.rpartition("/")[0]]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self.objects / folder) as listing:
                    entries = list(listing)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                        folders.append(key)
                elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield Blob(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _make(self, folder: Path) -> None:
        """Make it and its parents below FOLDER; their entries are durable when this returns."""
        if folder in self._durable:
            return
        if self.objects in folder.parents:
            self._make(folder.parent)
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if folder.is_symlink():
                raise Irregular(errno.ELOOP, f"{folder} is a symbolic link") from None
        _sync(folder.parent)
        self._durable.add(folder)


def _enter(at: int, folder: str, key: str) -> int:
    """A descriptor of the folder in the one at `at`, which is closed when there is one."""
    try:
        inner = os.open(folder, _PATH, dir_fd=at)
    except NotADirectoryError:
        if stat.S_ISREG(os.stat(folder, dir_fd=at, follow_symlinks=False).st_mode):
            raise  # an object: nothing lies in it
        raise Irregular(errno.ELOOP, f"{key}: {folder} is no folder") from None
    os.close(at)
    return inner


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _remove_if_nobody_writes_it(path: Path) -> None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(file)
