"""The bare floor: clone into fresh namespaces, mount an overlay, exec /bin/true, destroy; no Atoll anywhere.

`bench.interactive` runs this file as a small process of its own (a fork of a large one would be dearer) and asks it
for one round at a time, so that rounds of the floor and of Atoll alternate and drift of the machine hits both.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_CLONE, SYS_PIVOT_ROOT = {"x86_64": (56, 155), "aarch64": (220, 41)}[os.uname().machine]
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MS_REC_PRIVATE = 0x4000 | 0x40000
MNT_DETACH = 2


def check(result: int, what: str) -> int:
    """The result of a system call; OSError when it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    args = [part.encode() for part in (source, target, kind, data)]
    check(LIBC.mount(args[0], args[1], args[2], ctypes.c_ulong(flags), args[3]), f"mount {kind} on {target}")


def enter_private_mounts() -> None:
    """Whatever this process mounts is seen by nobody else and goes when it ends. Not root: in a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    rootless = uid != 0
    check(LIBC.unshare(CLONE_NEWNS | (CLONE_NEWUSER if rootless else 0)), "unshare")
    if rootless:
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    mount("none", "/", "none", MS_REC_PRIVATE)


def child(root: str, base: str, extra: str) -> None:
    """Pid 1 of the new namespaces: build the root, enter it, become /bin/true. Never returns."""
    try:
        # A merged host's /usr is a root of its own (bin, lib, lib64); / would not do: mounts below it are locked.
        mount("overlay", root, "overlay", 0, f"lowerdir=/usr,upperdir={base}/upper,workdir={base}/work{extra}")
        os.chdir(root)
        check(LIBC.syscall(SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
        check(LIBC.umount2(b".", MNT_DETACH), "umount the old root")
        os.chdir("/")
        os.execv("/bin/true", ["true"])
    except BaseException as error:
        os.write(2, f"floor: {error}\n".encode())
    os._exit(1)


def one(base: str, number: int, extra: str) -> tuple[float, float]:
    """One round: milliseconds until /bin/true had ended, and until nothing of it was left."""
    began = time.perf_counter()
    here = f"{base}/{number}"
    for path in (here, f"{here}/upper", f"{here}/work", f"{here}/root"):
        os.mkdir(path)
    pid = check(LIBC.syscall(SYS_CLONE, NAMESPACES | signal.SIGCHLD, 0, 0, 0, 0), "clone")
    if pid == 0:
        child(f"{here}/root", here, extra)
    _, status = os.waitpid(pid, 0)
    ended = time.perf_counter()
    if status:
        raise RuntimeError(f"/bin/true did not run in the floor's sandbox (status {status})")
    shutil.rmtree(here)
    return (ended - began) * 1e3, (time.perf_counter() - began) * 1e3


def main() -> None:
    """One round for each line on stdin; a line `to-exit with-destroy` (milliseconds) on stdout for each."""
    base = tempfile.mkdtemp(prefix="atoll-floor-")
    extra = "" if os.getuid() == 0 else ",userxattr"
    try:
        enter_private_mounts()
        mount("floor", base, "tmpfs", 0, "size=64m")
        for number, _ in enumerate(sys.stdin):
            print(*(f"{value:.4f}" for value in one(base, number, extra)), flush=True)
    finally:
        LIBC.umount2(base.encode(), MNT_DETACH)
        os.rmdir(base)


if __name__ == "__main__":
    main()
