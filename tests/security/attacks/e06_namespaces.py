"""Make or join namespaces."""

from __future__ import annotations

import os
import struct

from prelude import attempt, in_child, libc

KINDS = {
    "time": 0x80, "mount": 0x2_0000, "cgroup": 0x200_0000, "uts": 0x400_0000, "ipc": 0x800_0000,
    "user": 0x1000_0000, "pid": 0x2000_0000, "net": 0x4000_0000,
}  # fmt: skip


def clones(flags: int) -> int:
    """The raw call, which returns twice."""
    pid = libc.syscall(56, flags | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid


def clones3(flags: int) -> int:
    arguments = struct.pack("=11Q", flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    pid = libc.syscall(435, arguments, len(arguments))
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid


for name, flag in KINDS.items():
    attempt(f"unshare {name}", lambda flag=flag: in_child(lambda: libc.unshare(flag)))
    attempt(f"unshare user and {name}", lambda flag=flag: in_child(lambda: libc.unshare(flag | KINDS["user"])))
    attempt(f"clone3 {name}", lambda flag=flag: clones3(flag))
    if flag != KINDS["time"]:
        attempt(f"clone {name}", lambda flag=flag: clones(flag))
        attempt(f"clone user and {name}", lambda flag=flag: clones(flag | KINDS["user"]))
# the upper half of the register must not hide the flags
attempt("clone with high bits", lambda: clones(KINDS["user"] | 1 << 40))


def joins(path: str) -> int:
    fd = os.open(path, os.O_RDONLY)
    return libc.setns(fd, 0)


for owner in ("1", "self"):
    for kind in ("mnt", "net", "ipc", "uts", "cgroup"):
        attempt(f"setns {owner} {kind}", lambda p=f"/proc/{owner}/ns/{kind}": in_child(lambda: joins(p)))
for pid in (1, os.getpid()):
    attempt(f"setns pidfd {pid}", lambda pid=pid: in_child(lambda: libc.setns(os.pidfd_open(pid), KINDS["net"])))
