"""Watching: what changes below a folder, told as it happens; the operation `watch`.

inotify tells names in folders, so each folder is watched, and what is in it is known: one that is new is looked through
after its watch is placed, so that nothing made in between is missed, and nothing is told twice. Symbolic links are
never followed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from collections import deque

from atoll.sidekick.changes import ADD, ADD_DIR, CHANGE, UNLINK, UNLINK_DIR, Changes
from atoll.sidekick.connection import Connection
from atoll.sidekick.globs import Globs
from atoll.sidekick.loop import READ
from atoll.sidekick.paths import clean, kernel_devices, open_below, open_path, refusal
from atoll.sidekick.protocol import RESULT, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.sidekick.operations import Sidekick

WATCHES_MAX = 16  # of one sandbox
FOLDERS_MAX = 8192  # of one watch
ENTRIES_MAX = 100_000  # known to one watch, which remembers their names
LOOK_S = 2.0  # how often it is asked whether the folder is still the same: a restore puts another in its place
TURN_S = 0.01  # of looking through folders, then it is the others' turn
READ_BYTES = 65_536

_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
_Q_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x4000_0000
_MASK = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | 0x0100_0000  # IN_ONLYDIR
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_HEAD = struct.Struct("iIII")
_OWN = ".atoll-"  # what uploads are called until they are whole

_libc = ctypes.CDLL(None, use_errno=True)


class _Folder:
    """One watched folder: the kernel's number of its watch, and what is in it (name -> whether it is a folder)."""

    __slots__ = ("names", "wd")

    def __init__(self) -> None:
        self.wd = -1
        self.names: dict[str, bool] = {}


class _Crowded(Exception):
    """More folders or entries than one watch holds."""


def watch(sidekick: Sidekick, connection: Connection, request: dict[str, Any]) -> None:
    """RESULT {path, kind} once it is in place; from then on RESULT {changes: [[event, path], ...]}."""
    path = clean(request.get("path"))
    globs = Globs(request.get("ignored") or [], path)
    if sidekick.watches >= WATCHES_MAX:
        raise Refused("unavailable", f"at most {WATCHES_MAX} watches of one sandbox at once")
    Watch(sidekick, connection, path, globs).begin()


class Watch:
    """One client's watch. A path that is no folder is watched by its name in the folder above."""

    def __init__(self, sidekick: Sidekick, connection: Connection, path: str, globs: Globs) -> None:
        self._sidekick = sidekick
        self._loop = sidekick.loop
        self._connection = connection
        self._path = path
        self._globs = globs
        self._only = ""  # the one name that matters, of a file
        self._root = -1  # descriptor of the watched folder
        self._identity = (0, 0)
        self._inotify = -1
        self._folders: dict[str, _Folder] = {}  # by path below the root, which itself is ""
        self._by_wd: dict[int, str] = {}
        self._entries = 0
        self._to_scan: deque[str] = deque()
        self._scanning = False
        self._begun = False
        self._full = False
        self._reading = False
        self._kernel = kernel_devices()
        self._changes = Changes(self._loop, self._send, lambda: connection.room and not connection.closed)

    def begin(self) -> None:
        found = _open(self._path)
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            os.close(found)
            above, self._only = os.path.split(self._path)
            found = _open(above, os.O_DIRECTORY)
        self._root = found
        try:
            self._listen()
        except BaseException:
            os.close(self._root)
            raise
        self._sidekick.watches += 1
        self._looks = self._loop.after(LOOK_S, self._look)
        self._connection.on_writable = self._writable
        self._connection.when_closed(self._close)
        self._scan("")

    # the kernel's side

    def _listen(self) -> None:
        """A new inotify instance for the root: what the last one had watched is not watched any more."""
        if self._inotify >= 0:
            self._loop.forget(self._inotify)
            os.close(self._inotify)
        self._inotify = _libc.inotify_init1(_CLOEXEC_NONBLOCK)
        if self._inotify < 0:
            raise Refused("unavailable", "the sandbox is at its limit of watches")
        info = os.fstat(self._root)
        self._identity = (info.st_dev, info.st_ino)
        self._by_wd.clear()
        self._reading = True
        self._loop.watch(self._inotify, READ, self._ready)

    def _ready(self, _events: int) -> None:
        if not self._connection.room:  # what comes meanwhile waits in the kernel's queue, which has a bound
            self._reading = False
            self._loop.forget(self._inotify)
            return
        try:
            data = os.read(self._inotify, READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            wd, mask, _cookie, size = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            self._happened(wd, mask, os.fsdecode(data[at : at + size].rstrip(b"\0")))
            at += size

    def _writable(self) -> None:
        self._changes.tell()
        if not self._reading and self._inotify >= 0:
            self._reading = True
            self._loop.watch(self._inotify, READ, self._ready)

    def _happened(self, wd: int, mask: int, name: str) -> None:
        if mask & _Q_OVERFLOW:
            self._changes.overflow()
            self._scan("")
            return
        folder = self._by_wd.get(wd)
        if folder is None:
            return
        if mask & _IGNORED:  # it is gone; its parent tells of that
            del self._by_wd[wd]
            return
        if not name or folder not in self._folders or self._ignores(folder, name):
            return
        is_folder = bool(mask & _ISDIR)
        if mask & (_CREATE | _MOVED_TO):
            self._appeared(folder, name, is_folder, moved=bool(mask & _MOVED_TO))
        elif mask & (_DELETE | _MOVED_FROM):
            self._vanished(folder, name)
        elif self._folders[folder].names.get(name) is False:
            self._changes.add(CHANGE, self._shown(_join(folder, name)))

    def _ignores(self, folder: str, name: str) -> bool:
        if self._only:
            return name != self._only
        return name.startswith(_OWN) or self._globs.match(_join(folder, name))

    # what is known

    def _appeared(self, folder: str, name: str, is_folder: bool, *, moved: bool = False) -> None:
        names, path = self._folders[folder].names, _join(folder, name)
        known = names.get(name)
        if known is not None and known != is_folder:
            self._vanished(folder, name)
            known = None
        if known is None:
            if self._entries >= ENTRIES_MAX:
                self._crowd()
                return
            names[name] = is_folder
            self._entries += 1
            self._tell(ADD_DIR if is_folder else ADD, path)
        elif moved and not is_folder:
            self._tell(CHANGE, path)
        if is_folder and not self._only and (known is None or moved):
            self._scan(path)

    def _vanished(self, folder: str, name: str) -> None:
        was_folder = self._folders[folder].names.pop(name, None)
        if was_folder is None:
            return
        self._entries -= 1
        path = _join(folder, name)
        if was_folder:
            self._drop(path)
        self._tell(UNLINK_DIR if was_folder else UNLINK, path)

    def _drop(self, path: str) -> None:
        """Everything below a folder that is gone, the deepest first."""
        pending = [path]
        order: list[tuple[str, _Folder]] = []
        while pending:
            here = pending.pop()
            folder = self._folders.pop(here, None)
            if folder is not None:
                order.append((here, folder))
                pending += [_join(here, name) for name, is_folder in folder.names.items() if is_folder]
        for here, folder in reversed(order):
            self._entries -= len(folder.names)
            for name, is_folder in folder.names.items():
                self._tell(UNLINK_DIR if is_folder else UNLINK, _join(here, name))
            if self._by_wd.get(folder.wd) == here:
                del self._by_wd[folder.wd]
                _libc.inotify_rm_watch(self._inotify, folder.wd)

    def _crowd(self) -> None:
        if not self._begun:
            raise _Crowded
        if not self._full:
            self._full = True
            self._changes.overflow()

    def _tell(self, event: str, path: str) -> None:
        if self._begun:
            self._changes.add(event, self._shown(path))

    def _shown(self, path: str) -> str:
        above = os.path.split(self._path)[0] if self._only else self._path
        return os.path.join(above, path) if path else above

    # looking through folders

    def _scan(self, path: str) -> None:
        self._to_scan.append(path)
        if not self._scanning:
            self._scanning = True
            self._loop.after(0, self._scan_some)

    def _scan_some(self) -> None:
        until = time.monotonic() + TURN_S
        while self._to_scan and not self._connection.closed:
            if time.monotonic() > until:
                self._loop.after(0, self._scan_some)
                return
            try:
                self._look_through(self._to_scan.popleft())
            except _Crowded:
                message = f"more than {FOLDERS_MAX} folders or {ENTRIES_MAX} files: ignore some, or watch a part"
                self._connection.refuse(Refused("too_large", f"path {self._path!r}: {message}", "path"))
                return
            except Refused as refused:
                self._connection.refuse(refused)
                return
            except OSError as error:  # no descriptor left, say: what is there is not known
                if not self._begun:
                    self._connection.refuse(refusal(error, self._path))
                    return
                self._changes.overflow()
        self._scanning = False
        if not self._begun and not self._connection.closed:
            self._begun = True
            self._connection.send_json(RESULT, {"path": self._path, "kind": "file" if self._only else "directory"})

    def _look_through(self, path: str) -> None:
        """Place the watch, then compare what is there with what is known."""
        try:
            found = open_below(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if not path and not self._begun:
                raise refusal(error, self._path) from None
            return  # gone by now, which its parent tells, or not the tenant's to read
        try:
            if path and os.fstat(found).st_dev in self._kernel:
                return
            if path not in self._folders and len(self._folders) >= FOLDERS_MAX:
                self._crowd()
                return
            folder = self._folders.setdefault(path, _Folder())
            self._place(found, path, folder)
            self._compare(found, path, folder)
        finally:
            os.close(found)

    def _place(self, found: int, path: str, folder: _Folder) -> None:
        wd: int = _libc.inotify_add_watch(self._inotify, b"/proc/self/fd/%d" % found, _MASK)
        if wd < 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSPC, errno.ENOMEM):
                self._crowd()
            elif not path and not self._begun:
                raise refusal(OSError(number, os.strerror(number)), self._path)
            return
        if folder.wd != wd and self._by_wd.get(folder.wd) == path:  # another folder stood here, and nobody told
            del self._by_wd[folder.wd]
            _libc.inotify_rm_watch(self._inotify, folder.wd)
        folder.wd = wd
        self._by_wd[wd] = path  # a folder that moved keeps its number: the old place is found to be empty

    def _compare(self, found: int, path: str, folder: _Folder) -> None:
        present: dict[str, bool] = {}
        with os.scandir(found) as entries:
            for entry in entries:
                if not self._ignores(path, entry.name):
                    present[entry.name] = entry.is_dir(follow_symlinks=False)
        for name in [name for name in folder.names if name not in present]:
            self._vanished(path, name)
        for name, is_folder in present.items():
            if path not in self._folders:
                return
            again = name in folder.names
            self._appeared(path, name, is_folder)
            if again and is_folder and not self._only:
                self._to_scan.append(_join(path, name))

    # the root itself

    def _look(self) -> None:
        """Whether what is at the path is still what is watched."""
        self._looks = self._loop.after(LOOK_S, self._look)
        if not self._begun or self._scanning:
            return
        try:
            found = _open(os.path.split(self._path)[0] if self._only else self._path, os.O_DIRECTORY)
        except Refused:
            if self._identity != (0, 0):
                self._identity = (0, 0)
                self._drop("")
                self._tell(UNLINK_DIR, "")
            return
        info = os.fstat(found)
        if (info.st_dev, info.st_ino) == self._identity:
            os.close(found)
            return
        was_gone = self._identity == (0, 0)
        os.close(self._root)
        self._root = found
        self._listen()
        if was_gone:
            self._tell(ADD_DIR, "")
        else:
            self._changes.overflow()
        self._scan("")

    # the client's side

    def _send(self, changes: list[list[str]]) -> None:
        if changes and changes[0][0] == "overflow":
            changes[0][1] = self._path
        self._connection.send_json(RESULT, {"changes": changes})

    def _close(self) -> None:
        self._sidekick.watches -= 1
        self._looks.cancel()
        self._changes.close()
        self._to_scan.clear()
        if self._inotify >= 0:
            self._loop.forget(self._inotify)
            os.close(self._inotify)
            self._inotify = -1
        os.close(self._root)
        self._folders.clear()


def _open(path: str, flags: int = 0) -> int:
    try:
        return open_path(path, os.O_PATH | flags)
    except OSError as error:
        raise refusal(error, path) from None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
