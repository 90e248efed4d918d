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
MAX_DEPTH = 256  # of what is removed at once
MAX_LINKS = 40  # as the kernel
LIST_PIECE = 500  # entries in one frame: names of 255 bytes, each written as \u0001, still fit


def read(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT entry, DATA ..., END."""
    path = clean(request.get("path"))
    fd = _open_regular(path)
    info = os.fstat(fd)

    def pump() -> None:
        while connection.room and not connection.closed:
            data = os.read(fd, CHUNK_BYTES)
            if not data:
                connection.send(END)
                connection.finish()
                return
            connection.send(DATA, data)

    connection.on_writable = pump
    connection.when_closed(lambda: os.close(fd))
    connection.send_json(RESULT, _entry(os.path.basename(path), info))
    pump()


def write(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """DATA ..., END from the client; RESULT {size}. A client that goes away first leaves nothing behind."""
    path = _final_target(clean(request.get("path")))
    folder, name = os.path.split(path)
    mode = request.get("mode")
    directory, old_mode = _prepare(folder, name, path)
    temporary = f".atoll-{os.urandom(8).hex()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError as error:
        os.close(directory)
        raise refusal(error, path) from None
    size = 0
    done = False

    def clean_up() -> None:
        try:
            if not done:
                os.unlink(temporary, dir_fd=directory)
        except OSError:
            pass  # somebody inside removed it first
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

    connection.when_closed(clean_up)
    connection.on_frame = on_frame


def list_directory(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT {entries} in pieces, since an answer may be larger than a frame; an empty one ends it."""
    path = clean(request.get("path"))
    try:
        fd = open_path(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise Refused("bad_request", f"path {path!r}: is not a directory", "path") from None
        raise refusal(error, path) from None
    connection.when_closed(lambda: os.close(fd))
    names = _names(fd, path)
    # what a directory holds is the tenant's choice: of most entries only the names are kept here
    pieces = iter([names[at : at + LIST_PIECE] for at in range(0, len(names), LIST_PIECE)])

    def pump() -> None:
        while connection.room and not connection.closed:
            piece = next(pieces, None)
            if piece is None:
                connection.send_json(RESULT, {"entries": []})
                connection.finish()
                return
            if entries := [entry for name in piece if (entry := _entry_at(fd, name)) is not None]:
                connection.send_json(RESULT, {"entries": entries})

    connection.on_writable = pump
    pump()


def _names(fd: int, path: str) -> list[str]:
    names: list[str] = []
    try:
        with os.scandir(fd) as found:
            for item in found:
                if len(names) >= MAX_ENTRIES:
                    raise Refused("too_large", f"path {path!r}: more than {MAX_ENTRIES} entries", "path")
                names.append(item.name)
    except OSError as error:
        raise refusal(error, path) from None
    names.sort()
    return names


def _entry_at(fd: int, name: str) -> dict[str, Any] | None:
    """None when it is gone by now."""
    try:
        return _entry(name, os.stat(name, dir_fd=fd, follow_symlinks=False))
    except OSError:
        return None


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
    to_fd = open_making(destination_folder)
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
    """Where a write to `path` lands: a link in the last place is followed, also where nothing is there yet."""
    target = path
    for _ in range(MAX_LINKS):
        folder, name = os.path.split(target)
        if name in ("", ".", ".."):
            raise Refused("bad_request", f"path {path!r}: is a directory", "path")
        further = _linked(folder, name)
        if further is None:
            return target
        target = further
    raise Refused("bad_request", f"path {path!r}: too many symbolic links", "path")


def _linked(folder: str, name: str) -> str | None:
    """What a link leads to next; None when it is no link, or nothing."""
    try:
        directory = open_path(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None  # making the folder will tell
    try:
        # from where the folder really is: `..` in the link leads up from there
        return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.readlink(name, dir_fd=directory))
    except OSError:
        return None
    finally:
        os.close(directory)


def _prepare(folder: str, name: str, path: str) -> tuple[int, int]:
    """(the parent's descriptor, the mode that the new file gets)."""
    directory = open_making(folder)
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
    os.close(open_making(clean(path)))


def open_making(folder: str) -> int:
    """An O_PATH descriptor of the directory, made with its parents when absent."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        try:
            return open_path(folder, flags)
        except FileNotFoundError:
            parent, name = os.path.split(folder)
            above = open_making(parent)
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
        _empty(directory, name, [MAX_REMOVALS], path, MAX_DEPTH)
    os.rmdir(name, dir_fd=directory)


def _empty(directory: int, name: str, left: list[int], path: str, depth: int) -> None:
    if depth == 0:
        raise Refused("too_large", f"path {path!r}: more than {MAX_DEPTH} folders deep", "path")
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as found:
            items = list(found)
        for item in items:
            left[0] -= 1
            if left[0] < 0:
                raise Refused("too_large", f"path {path!r}: more than {MAX_REMOVALS} entries", "path")
            if item.is_dir(follow_symlinks=False):
                _empty(fd, item.name, left, path, depth - 1)
                os.rmdir(item.name, dir_fd=fd)
            else:
                os.unlink(item.name, dir_fd=fd)
    finally:
        os.close(fd)
