"""Repair: what to do about a tree's image that a crash of the machine, or its disk, has damaged."""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

FSCK = ("/usr/sbin/e2fsck", "/sbin/e2fsck", "/usr/bin/e2fsck")
FSCK_S = 100.0
_STATE_AT = 1024 + 58  # s_state of the superblock
_MAGIC_AT = 1024 + 56
_MAGIC = 0xEF53
_ERRORS = 2
_MENDED = (0, 1)  # e2fsck: nothing was wrong, all of it was mended


def has_errors(image: str) -> bool:
    """Whether the file system noted errors in its superblock, or has lost that."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        magic, state = struct.unpack("<HH", os.pread(fd, 4, _MAGIC_AT).ljust(4, b"\0"))
    finally:
        os.close(fd)
    return magic != _MAGIC or bool(state & _ERRORS)


def repair(image: str) -> None:
    """Mend what can be mended without a question (e2fsck -p); OSError when that is not all."""
    fsck = next((path for path in FSCK if os.access(path, os.X_OK)), None)
    if fsck is None:
        raise OSError(errno.ENOENT, f"{os.path.basename(image)} is damaged and e2fsck is missing: install e2fsprogs")
    null = os.open("/dev/null", os.O_WRONLY)
    quiet = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    pid = os.posix_spawn(fsck, [fsck, "-p", image], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=quiet)
    os.close(null)
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], FSCK_S)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in _MENDED:
        raise OSError(errno.EUCLEAN, f"{os.path.basename(image)} is damaged (e2fsck ended with {code})")
