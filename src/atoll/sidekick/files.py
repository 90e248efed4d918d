"""Files: read, write, list, stat, make, remove and move, all inside the sandbox and with the tenant's rights.

A file is replaced in one step: readers see the old one or the new one, never half of it.
"""

from __future__ import annotations

import errno
import os
import stat

from atoll.sidekick.connection import Connection
from atoll.sidekick.paths import clean, is_kernel_file, kind_of, open_path, refusal
from atoll.sidekick.protocol import CHUNK_BYTES, DATA, END, RESULT, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.sidekick.operations import Sidekick

MAX_ENTRIES = 100_000
MAX_REMOVALS = 2_000_000


def read(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT entry, DATA ..., END."""
    path = clean(request.get("path"))
    fd = _open_regular(path)
    info = os.fstat(fd)
    connection.send_json(RESULT, _entry(os.path.basename(path), info))

    def pump() -> None:
        while connection.room and not connection.closed:
            data = os.read(fd, CHUNK_BYTES)
            if not data:
                connection.send(END)
                connection.finish()
                return
            connection.send(DATA, data)

    connection.on_writable = pump
    connection.on_close = lambda: os.close(fd)
    pump()


def write(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """DATA ..., END from the client; RESULT {size}. A client that goes away first leaves nothing behind."""
    path = _final_target(clean(request.get("path")))
    folder, name = os.path.split(path)
    mode = request.get("mode")
    directory, old_mode = _prepare(folder, name, path)
    temporary = f".{name[:200]}.atoll-{os.urandom(6).hex()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        os.close(directory)
        raise refusal(error, path) from None
    size = 0
    done = False

    def clean_up() -> None:
        if not done:
            os.unlink(temporary, dir_fd=directory)
        os.close(fd)
        os.close(directory)

    def on_frame(kind: int, payload: bytes) -> None:
        nonlocal size, done
        try:
            if kind == DATA:
                view = memoryview(payload)
                while view:
                    view = view[os.write(fd, view) :]
                size += len(payload)
            elif kind == END:
                os.fchmod(fd, mode & 0o777 if isinstance(mode, int) else old_mode)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                done = True
                connection.finish({"size": size})
        except OSError as error:
            raise refusal(error, path) from None

    connection.on_close = clean_up
    connection.on_frame = on_frame


def list_directory(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    path = clean(request.get("path"))
    entries: list[dict[str, Any]] = []
    try:
        fd = open_path(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as found:
                for item in found:
                    if len(entries) >= MAX_ENTRIES:
                        raise Refused("too_large", f"path {path!r}: more than {MAX_ENTRIES} entries", "path")
                    try:
                        info = os.stat(item.name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    entries.append(_entry(item.name, info))
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise Refused("bad_request", f"path {path!r}: is not a directory", "path") from None
        raise refusal(error, path) from None
    entries.sort(key=lambda entry: entry["name"])
    # an answer may be larger than a frame: it travels in pieces, an empty one ends it
    pieces = [entries[at : at + 2000] for at in range(0, len(entries), 2000)]

    def pump() -> None:
        while connection.room and not connection.closed:
            piece: list[dict[str, Any]] = pieces.pop(0) if pieces else []
            connection.send_json(RESULT, {"entries": piece})
            if not piece:
                connection.finish()
                return

    connection.on_writable = pump
    pump()


def stat_path(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    path = clean(request.get("path"))
    try:
        fd = open_path(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise refusal(error, path) from None
    connection.finish(_entry(os.path.basename(path) or "/", info))


def make_directory(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    path = clean(request.get("path"))
    make_directories(path)
    connection.finish({})


def remove(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    path = clean(request.get("path"))
    folder, name = os.path.split(path)
    if not name:
        raise Refused("bad_request", "path: the root cannot be removed", "path")
    try:
        directory = open_path(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            _remove_at(directory, name, path, recursive=bool(request.get("recursive")))
        finally:
            os.close(directory)
    except OSError as error:
        raise refusal(error, path) from None
    connection.finish({})


def move(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    source = clean(request.get("from"), "from")
    destination = clean(request.get("to"), "to")
    destination_folder, destination_name = os.path.split(destination)
    source_folder, source_name = os.path.split(source)
    if not source_name or not destination_name:
        raise Refused("bad_request", "from, to: the root cannot be moved", "from")
    to_fd = _open_making(destination_folder)
    try:
        from_fd = open_path(source_folder, os.O_PATH | os.O_DIRECTORY)
        try:
            os.rename(source_name, destination_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        finally:
            os.close(from_fd)
    except OSError as error:
        raise refusal(error, source, "from") from None
    finally:
        os.close(to_fd)
    connection.finish({})


def _entry(name: str, info: os.stat_result) -> dict[str, Any]:
    return {
        "name": name.encode("utf-8", "replace").decode() if not name.isascii() else name,
        "kind": kind_of(info.st_mode),
        "size": info.st_size,
        "mode": stat.S_IMODE(info.st_mode),
        "modified_at": info.st_mtime,
    }


def _open_regular(path: str) -> int:
    """A readable descriptor of a regular file that cannot block; Refused for anything else."""
    try:
        fd = open_path(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise Refused("bad_request", f"path {path!r}: is not a regular file", "path") from None
        raise refusal(error, path) from None
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and not is_kernel_file(info):
        return fd
    os.close(fd)
    what = "is a directory" if stat.S_ISDIR(info.st_mode) else "is not a regular file"
    raise Refused("bad_request", f"path {path!r}: {what}", "path")


def _final_target(path: str) -> str:
    """Where a write to `path` lands: links are followed by name, inside this root."""
    if os.path.basename(path) == "":
        raise Refused("bad_request", f"path {path!r}: is a directory", "path")
    try:
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            return path
    except OSError:
        return path
    target = os.path.realpath(path)
    if os.path.islink(target):
        raise Refused("bad_request", f"path {path!r}: too many symbolic links", "path")
    return target


def _prepare(folder: str, name: str, path: str) -> tuple[int, int]:
    """(the parent's descriptor, the mode that the new file gets)."""
    directory = _open_making(folder)
    old_mode = 0o644
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode):
            what = "is a directory" if stat.S_ISDIR(info.st_mode) else "is not a regular file"
            raise Refused("bad_request", f"path {path!r}: {what}", "path")
        old_mode = stat.S_IMODE(info.st_mode) & 0o777
    except FileNotFoundError:
        pass
    except OSError as error:
        os.close(directory)
        raise refusal(error, path) from None
    except Refused:
        os.close(directory)
        raise
    if is_kernel_file(os.fstat(directory)):
        os.close(directory)
        raise Refused("bad_request", f"path {path!r}: not on a file system for files", "path")
    return directory, old_mode


def make_directories(path: str) -> None:
    """Make the directory and its parents; no error when it exists. Refused when it cannot be."""
    os.close(_open_making(clean(path)))


def _open_making(folder: str) -> int:
    """An O_PATH descriptor of the directory, made with its parents when absent."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        try:
            return open_path(folder, flags)
        except FileNotFoundError:
            parent, name = os.path.split(folder)
            above = _open_making(parent)
            try:
                os.mkdir(name, 0o755, dir_fd=above)
            except FileExistsError:
                pass
            finally:
                os.close(above)
            return open_path(folder, flags)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise Refused("bad_request", f"path {folder!r}: a part of it is not a directory", "path") from None
        raise refusal(error, folder) from None


def _remove_at(directory: int, name: str, path: str, *, recursive: bool) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    if recursive:
        _empty(directory, name, [MAX_REMOVALS], path)
    os.rmdir(name, dir_fd=directory)


def _empty(directory: int, name: str, left: list[int], path: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as found:
            for item in found:
                left[0] -= 1
                if left[0] < 0:
                    raise Refused("too_large", f"path {path!r}: more than {MAX_REMOVALS} entries", "path")
                if item.is_dir(follow_symlinks=False):
                    _empty(fd, item.name, left, path)
                    os.rmdir(item.name, dir_fd=fd)
                else:
                    os.unlink(item.name, dir_fd=fd)
    finally:
        os.close(fd)
