"""Bake: copy a sandbox's writable layer into a template layer on disk, by a child that is only the sandbox's root.

The copier has no rights beyond the sandbox's user namespace, follows no link, and writes through an idmapped mount, so
that the layer's owners on disk are the plain ids that the sandbox saw.
"""

from __future__ import annotations

import errno
import os
import signal
import stat

from atoll.runtimes.local import syscalls
from atoll.runtimes.local.disks import copy_data
from atoll.sidekick.loop import READ, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BAKE_S = 300.0
MAX_DEPTH = 256
_OPAQUE = "trusted.overlay.opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def bake(loop: Loop, pid: int, userns: int, destination: str, reply: Callable[[dict[str, Any]], None]) -> None:
    """Copy the layer of the sandbox whose sidekick is `pid` into the new directory `destination`, then `reply`."""
    source = open_writable_layer(pid)
    try:
        os.mkdir(destination, 0o755)
        target = syscalls.clone_tree(destination, syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, userns=userns)
    except BaseException:
        os.close(source)
        raise
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    node, copier = os.getpid(), os.fork()
    if copier == 0:
        try:
            _die_with(node)
            # the node's: its lock and socket, should it die now, and its way to hear of children
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            syscalls.close_descriptors({0, 1, 2, source, target, theirs, userns})
            plain = os.open(destination, _FOLDER)
            _copy_as_tenant(source, target, userns)
            mark_opaque(source, plain)
            os.write(theirs, b"ok")
        except BaseException as error:
            os.write(theirs, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(0)
    for fd in (source, target, theirs):
        os.close(fd)

    def told(_events: int) -> None:
        timer.cancel()
        loop.forget(ours)
        said = os.read(ours, 4096)
        os.close(ours)
        if said == b"ok":
            reply({})
        else:
            text = said.decode(errors="replace") or "it took too long"
            reply({"error": {"code": "unavailable", "message": f"the layer could not be copied: {text}"}})

    timer = loop.after(BAKE_S, lambda: os.kill(copier, 9))
    loop.watch(ours, READ, told)


def _die_with(parent: int) -> None:
    syscalls.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def _copy_as_tenant(source: int, target: int, userns: int) -> None:
    """The copy, by a child that has the sandbox's root for a user; OSError with what went wrong."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        try:
            syscalls.setns(userns, syscalls.CLONE_NEWUSER)
            os.setresgid(0, 0, 0)
            os.setgroups([])
            os.setresuid(0, 0, 0)
            _die_with(parent)  # a change of user forgets it
            copy_tree(source, target, Budget(source))
            os._exit(0)
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(1)
    os.close(writing)
    said = os.read(reading, 4096)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise OSError(said.decode(errors="replace") or "the copier was killed")


def mark_opaque(source: int, target: int, depth: int = MAX_DEPTH) -> None:
    """A folder that took the place of one below hides what was in that: only the host's root can tell, and write so."""
    if _OPAQUE in os.listxattr(source):
        os.setxattr(target, _OPAQUE, b"y")
    with os.scandir(target) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names if depth else ():
        into = os.open(name, _FOLDER, dir_fd=target)
        try:
            below = os.open(name, _FOLDER, dir_fd=source)
        except OSError:  # the sandbox lives on, and took it away
            os.close(into)
            continue
        try:
            mark_opaque(below, into, depth - 1)
        finally:
            os.close(below)
            os.close(into)


def open_writable_layer(pid: int) -> int:
    """A descriptor of it: the one directory that the sidekick opened before its root was changed. OSError for none.

    It may have others open, for a client: those are on mounts that it can name. Those come and go meanwhile, and so may
    what a number stands for: it is opened first and looked at then.
    """
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        mounted = {line.split(b" ", 1)[0] for line in file}
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            found = os.open(f"{folder}/{name}", _FOLDER & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with open(f"/proc/self/fdinfo/{found}", "rb") as file:
            mount = next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), b"")
        if mount not in mounted:
            return found
        os.close(found)
    raise OSError(f"the sidekick {pid} keeps no writable layer open")


class Budget:
    """What may still be written: no more than the layer's disk holds, which is the tenant's limit.

    Second names of a file cost a tenant nothing and would fill the host's disk, and so would what changes meanwhile.
    """

    def __init__(self, source: int) -> None:
        disk = os.fstatvfs(source)
        self.bytes = disk.f_blocks * disk.f_frsize
        self.entries = disk.f_files

    def count(self) -> None:
        """One more entry; OSError (EFBIG) when that is too many."""
        self.entries -= 1
        if self.entries < 0:
            raise OSError(errno.EFBIG, "more entries than its disk can have")


def copy_tree(source: int, target: int, budget: Budget, depth: int = MAX_DEPTH) -> None:
    """Copy what is in one directory into another: files, links, folders, whiteouts, their owners, modes and times."""
    if depth == 0:
        raise OSError(errno.EFBIG, f"more than {MAX_DEPTH} folders deep")
    info = os.fstat(source)
    with os.scandir(source) as entries:
        for entry in entries:
            _copy(entry.name, source, target, budget, depth)
    here = os.open(".", _FOLDER, dir_fd=target)
    try:
        os.chown(here, info.st_uid, info.st_gid)
        os.chmod(here, stat.S_IMODE(info.st_mode))
        os.utime(here, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        os.close(here)


def _copy(name: str, source: int, target: int, budget: Budget, depth: int) -> None:
    budget.count()
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        below, into = os.open(name, _FOLDER, dir_fd=source), os.open(name, _FOLDER, dir_fd=target)
        try:
            copy_tree(below, into, budget, depth - 1)
        finally:
            os.close(below)
            os.close(into)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISREG(info.st_mode):
        _copy_file(name, source, target, info, budget)
    elif stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)  # overlay's mark of a deleted name
    else:
        return  # sockets and pipes have no meaning in a template
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_file(name: str, source: int, target: int, info: os.stat_result, budget: Budget) -> None:
    # the sandbox lives on meanwhile: a pipe that took the file's place must not make us wait for a writer
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        budget.bytes -= copy_data(reading, writing, budget.bytes)
        os.fchmod(writing, stat.S_IMODE(info.st_mode) & 0o777)
    finally:
        os.close(reading)
        os.close(writing)
