"""The /dev of sandboxes: one small read-only tree of harmless device nodes, cloned into each sandbox as one mount."""

from __future__ import annotations

import os
import stat

from atoll.runtimes.local import syscalls as sys

_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
ATTRIBUTES = sys.ATTR_RDONLY | sys.ATTR_NOSUID | sys.ATTR_NOEXEC


def fill(folder: str, *, with_nodes: bool) -> None:
    """Make nodes (or, where mknod is not for us, files to bind the host's on), links and mount points."""
    os.umask(0)
    for name, (major, minor) in _NODES.items():
        if with_nodes:
            os.mknod(f"{folder}/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        else:
            os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
            sys.bind(f"/dev/{name}", f"{folder}/{name}", sys.ATTR_NOSUID | sys.ATTR_NOEXEC)
    for name, target in _LINKS.items():
        os.symlink(target, f"{folder}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{folder}/{name}", 0o755)
    os.umask(0o022)
