"""Copying: a folder's files into another folder, as the tenant; the operations `copy` and `uncopy`.

Nothing that is there already is replaced. Each file appears whole, with its source's mode and time; what was made is
told, so that `uncopy` takes away exactly that. A copy goes on in small steps beside everything else.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from atoll.sidekick.connection import Connection
from atoll.sidekick.files import open_making
from atoll.sidekick.globs import Globs
from atoll.sidekick.paths import clean, is_kernel_file, kernel_devices, open_below, open_path, refusal
from atoll.sidekick.protocol import RESULT, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from atoll.sidekick.operations import Sidekick

COPIES_MAX = 4  # of one sandbox at once
ENTRIES_MAX = 100_000
SKIPPED_TOLD = 100
PIECE = 32  # entries of one frame
TURN_S = 0.01
STEP_BYTES = 1 << 20
SKIPPED_ALWAYS = (".git",)
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS, errno.EFBIG)

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


def copy(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT {made} in pieces, each entry [kind, path, size, mtime_ns]; then RESULT {files, folders, skipped}.

    With `again`, what an earlier copy has made counts as made by this; with `look`, too, and nothing more is made.
    """
    source, target = clean(request.get("source"), "source"), clean(request.get("target"), "target")
    if sidekick.copies >= COPIES_MAX:
        raise Refused("unavailable", f"at most {COPIES_MAX} copies in one sandbox at once")
    globs = Globs(request.get("ignored") or [], source)
    links: Any = request.get("links") or []
    if not isinstance(links, list) or len(links) > 64:  # pyright: ignore[reportUnknownArgumentType]
        raise Refused("bad_request", "links: expected names", "links")
    look = bool(request.get("look"))
    again = look or bool(request.get("again"))
    _Copy(sidekick, connection, source, target, globs, frozenset(links), again, look)  # pyright: ignore[reportUnknownArgumentType]


def uncopy(_sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """Entries as `copy` told them are removed, unless they have changed since, and folders once they are empty."""
    target, entries = clean(request.get("target"), "target"), request.get("entries")
    if not isinstance(entries, list) or len(entries) > 1000:  # pyright: ignore[reportUnknownArgumentType]
        raise Refused("bad_request", "entries: expected at most 1000", "entries")
    try:
        root = open_path(target, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            connection.finish({"removed": 0})
            return
        raise refusal(error, target, "target") from None
    removed = 0
    try:
        for entry in entries:  # pyright: ignore[reportUnknownVariableType]
            removed += _taken_away(root, entry)
    finally:
        os.close(root)
    connection.finish({"removed": removed})


class _Copy:
    """One copy under way."""

    def __init__(
        self,
        sidekick: Sidekick,
        connection: Connection,
        source: str,
        target: str,
        globs: Globs,
        links: frozenset[str],
        again: bool,
        look: bool,
    ) -> None:
        self._sidekick = sidekick
        self._connection = connection
        self._source = source
        self._target = target
        self._globs = globs
        self._links = links
        self._again = again
        self._look = look
        self._kernel = kernel_devices()
        self._made: list[list[Any]] = []
        self._files = self._folders = 0
        self._skipped: list[str] = []
        self._from, self._to = self._open()
        self._steps = self._walk()
        self._waits = False
        sidekick.copies += 1
        connection.on_writable = self._writable
        connection.when_closed(self._close)
        self._run()

    def _open(self) -> tuple[int, int]:
        try:
            source = open_path(self._source, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise refusal(error, self._source, "source") from None
        try:
            target = self._open_target()
        except BaseException:
            os.close(source)
            raise
        inside, outside = (os.readlink(f"/proc/self/fd/{fd}").rstrip("/") + "/" for fd in (target, source))
        if inside.startswith(outside):
            os.close(source)
            os.close(target)
            raise Refused("bad_request", f"target {self._target!r}: lies in the source", "target")
        return source, target

    def _open_target(self) -> int:
        if not self._look:
            return open_making(self._target)
        try:
            return open_path(self._target, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise refusal(error, self._target, "target") from None

    def _run(self) -> None:
        until = time.monotonic() + TURN_S
        try:
            while time.monotonic() < until and not self._connection.closed:
                if not self._connection.room:
                    self._waits = True
                    return
                next(self._steps)
                if len(self._made) >= PIECE:
                    self._tell()
        except StopIteration:
            self._tell()
            ended = {"files": self._files, "folders": self._folders, "skipped": self._skipped}
            self._connection.finish(ended)
            return
        except Refused as refused:
            self._tell()
            self._connection.refuse(refused)
            return
        except OSError as error:
            self._tell()
            self._connection.refuse(refusal(error, self._target, "target"))
            return
        if not self._connection.closed:
            self._sidekick.loop.after(0, self._run)

    def _writable(self) -> None:
        if self._waits:
            self._waits = False
            self._run()

    def _tell(self) -> None:
        if self._made:
            made, self._made = self._made, []
            self._connection.send_json(RESULT, {"made": made})

    def _walk(self) -> Generator[None]:
        """Each step is little work; the caller looks at the clock in between."""
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                source = open_below(self._from, folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                self._skip(folder)
                continue
            try:
                target = open_below(self._to, folder or ".", _FOLDER)
                try:
                    for name in sorted(os.listdir(source)):
                        path = f"{folder}/{name}" if folder else name
                        if name in SKIPPED_ALWAYS or self._globs.match(path):
                            self._skip(path)
                        elif (yield from self._one(source, target, name, path)):
                            pending.append(path)
                        yield
                finally:
                    os.close(target)
            finally:
                os.close(source)

    def _one(self, source: int, target: int, name: str, path: str) -> Generator[None, None, bool]:
        """Whether it is a folder to go into."""
        if self._files + self._folders >= ENTRIES_MAX:
            if self._look:
                return False  # here the copy ended
            raise Refused("too_large", f"source {self._source!r}: more than {ENTRIES_MAX} entries", "source")
        try:
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) and info.st_dev not in self._kernel:
                if name in self._links:
                    self._link(os.path.join(self._source, path), target, name, path)
                    return False
                return self._folder(info, target, name, path)
            if stat.S_ISLNK(info.st_mode):
                self._link(os.readlink(name, dir_fd=source), target, name, path)
            elif stat.S_ISREG(info.st_mode):
                yield from self._file(info, source, target, name, path)
            else:
                self._skip(path)
        except OSError as error:
            if error.errno in _FATAL:
                raise
            self._skip(path)
        return False

    def _folder(self, info: os.stat_result, target: int, name: str, path: str) -> bool:
        if not self._new(lambda: os.mkdir(name, stat.S_IMODE(info.st_mode) & 0o777 | 0o700, dir_fd=target)):
            there = os.stat(name, dir_fd=target, follow_symlinks=False)
            if not stat.S_ISDIR(there.st_mode):
                self._skip(path)
                return False
            if not self._again:
                return True
        self._note("d", target, name, path)
        return True

    def _link(self, leads_to: str, target: int, name: str, path: str) -> None:
        if not self._new(lambda: os.symlink(leads_to, name, dir_fd=target)):
            there = os.readlink(name, dir_fd=target) if self._again else None
            if there != leads_to:
                self._skip(path)
                return
        self._note("l", target, name, path)

    def _file(self, info: os.stat_result, source: int, target: int, name: str, path: str) -> Generator[None]:
        try:
            there = os.stat(name, dir_fd=target, follow_symlinks=False)
            same = (there.st_size, there.st_mtime_ns) == (info.st_size, info.st_mtime_ns)
            if self._again and same and stat.S_ISREG(there.st_mode):
                self._note("f", target, name, path)
            else:
                self._skip(path)
            return
        except FileNotFoundError:
            if self._look:
                return
        before = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        temporary = f".atoll-{os.urandom(8).hex()}"
        try:
            info = os.fstat(before)
            if not stat.S_ISREG(info.st_mode) or is_kernel_file(info):
                self._skip(path)
                return
            after = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                while os.sendfile(after, before, None, STEP_BYTES):  # pyright: ignore[reportArgumentType]
                    yield
                os.fchmod(after, stat.S_IMODE(info.st_mode) & 0o777)
                os.utime(after, ns=(info.st_atime_ns, info.st_mtime_ns))
            finally:
                os.close(after)
            os.link(temporary, name, src_dir_fd=target, dst_dir_fd=target)  # in one step, and never over another
        finally:
            os.close(before)
            try:
                os.unlink(temporary, dir_fd=target)
            except OSError:
                pass
        self._note("f", target, name, path)

    def _new(self, make: Callable[[], None]) -> bool:
        """Whether it made one: not where something has that name, and never where it only looks."""
        if self._look:
            return False
        try:
            make()
        except FileExistsError:
            return False
        return True

    def _note(self, kind: str, target: int, name: str, path: str) -> None:
        info = os.stat(name, dir_fd=target, follow_symlinks=False)
        self._made.append([kind, path, info.st_size, info.st_mtime_ns])
        if kind == "d":
            self._folders += 1
        else:
            self._files += 1

    def _skip(self, path: str) -> None:
        if len(self._skipped) < SKIPPED_TOLD:
            self._skipped.append(path)

    def _close(self) -> None:
        self._sidekick.copies -= 1
        self._steps.close()
        os.close(self._from)
        os.close(self._to)


def _taken_away(root: int, entry: Any) -> bool:
    try:
        kind, path, size, modified_ns = entry
        folder, name = os.path.split(path)
        above = open_below(root, folder or ".", _FOLDER)
    except (OSError, TypeError, ValueError):
        return False
    try:
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
        if kind == "d":
            os.rmdir(name, dir_fd=above)
        elif stat.S_ISDIR(info.st_mode) or (info.st_size, info.st_mtime_ns) != (size, modified_ns):
            return False
        else:
            os.unlink(name, dir_fd=above)
    except OSError:
        return False
    finally:
        os.close(above)
    return True
