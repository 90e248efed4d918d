"""Make device nodes and open them."""

from __future__ import annotations

import os
import stat

from prelude import attempt

DEVICES = {
    "mem": (stat.S_IFCHR, 1, 1), "port": (stat.S_IFCHR, 1, 4), "kmsg": (stat.S_IFCHR, 1, 11), "kvm": (stat.S_IFCHR, 10, 232),
    "fuse": (stat.S_IFCHR, 10, 229), "loop": (stat.S_IFBLK, 7, 0), "disk": (stat.S_IFBLK, 254, 0), "sda": (stat.S_IFBLK, 8, 0),
    "null": (stat.S_IFCHR, 1, 3), "tun": (stat.S_IFCHR, 10, 200), "console": (stat.S_IFCHR, 5, 1),
}  # fmt: skip


def makes(path: str, kind: int, major: int, minor: int) -> int:
    os.mknod(path, kind | 0o666, os.makedev(major, minor))
    os.unlink(path)
    return 1


for folder in ("/tmp", "/home/user", "/dev/shm", "/dev", "/"):
    for name, (kind, major, minor) in DEVICES.items():
        attempt(f"mknod {folder} {name}", lambda a=(f"{folder}/.{name}", kind, major, minor): makes(*a))
KNOWN = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
for folder, _, names in os.walk("/dev"):
    for name in names:
        path = f"{folder}/{name}"
        mode = os.stat(path).st_mode if os.path.exists(path) else 0
        if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and name not in KNOWN and not folder.startswith("/dev/pts"):
            attempt(f"open {path}", lambda path=path: os.open(path, os.O_RDONLY | os.O_NONBLOCK))
attempt("chmod a device", lambda: os.chmod("/dev/null", 0o666) or 1)
attempt("remove a device", lambda: os.rename("/dev/full", "/dev/full") or 1 if os.access("/dev", os.W_OK) else None)
