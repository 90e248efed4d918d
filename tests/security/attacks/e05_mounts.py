"""Change the mount table, the old way and the new."""

from __future__ import annotations

import os

from prelude import attempt, in_child, libc

os.makedirs("/tmp/at", exist_ok=True)
REMOUNT, BIND, REC, PRIVATE, MOVE = 32, 4096, 16384, 1 << 18, 8192
AT_FDCWD = -100
attempt("mount tmpfs", lambda: in_child(lambda: libc.mount(b"x", b"/tmp/at", b"tmpfs", 0, None)))
for kind in (b"proc", b"sysfs", b"devpts", b"overlay", b"ext4", b"fuse", b"nfs", b"9p", b"debugfs", b"bpf", b"mqueue"):
    attempt(f"mount {kind}", lambda kind=kind: in_child(lambda: libc.mount(b"x", b"/tmp/at", kind, 0, None)))
attempt("bind", lambda: in_child(lambda: libc.mount(b"/usr", b"/tmp/at", None, BIND, None)))
attempt("remount root", lambda: in_child(lambda: libc.mount(b"x", b"/", None, REMOUNT, None)))
attempt("remount /usr writable", lambda: in_child(lambda: libc.mount(b"x", b"/usr", None, REMOUNT | BIND, None)))
attempt("remount /proc writable", lambda: in_child(lambda: libc.mount(b"x", b"/proc", None, REMOUNT | BIND, None)))
attempt("change propagation", lambda: in_child(lambda: libc.mount(b"x", b"/", None, REC | PRIVATE, None)))
attempt("move", lambda: in_child(lambda: libc.mount(b"/dev", b"/tmp/at", None, MOVE, None)))
for path in (b"/proc", b"/proc/kcore", b"/usr", b"/dev", b"/dev/shm", b"/dev/pts", b"/"):
    attempt(f"umount {path}", lambda path=path: in_child(lambda: libc.umount2(path, 2)))
attempt("pivot_root", lambda: in_child(lambda: libc.syscall(155, b"/tmp/at", b"/tmp/at")))
attempt("chroot", lambda: in_child(lambda: libc.chroot(b"/tmp/at")))
attempt("open_tree clone", lambda: in_child(lambda: libc.syscall(428, AT_FDCWD, b"/usr", 1)))
attempt("open_tree", lambda: in_child(lambda: libc.syscall(428, AT_FDCWD, b"/usr", 0)))
attempt("fsopen", lambda: in_child(lambda: libc.syscall(430, b"tmpfs", 0)))
attempt("fspick", lambda: in_child(lambda: libc.syscall(433, AT_FDCWD, b"/", 0)))
attempt("fsmount", lambda: in_child(lambda: libc.syscall(432, 3, 0, 0)))
attempt("move_mount", lambda: in_child(lambda: libc.syscall(429, AT_FDCWD, b"/dev", AT_FDCWD, b"/tmp/at", 0)))
attempt("mount_setattr", lambda: in_child(lambda: libc.syscall(442, AT_FDCWD, b"/usr", 0, bytes(32), 32)))
attempt("statmount", lambda: in_child(lambda: libc.syscall(457, bytes(24), bytes(512), 512, 0)))
attempt("listmount", lambda: in_child(lambda: libc.syscall(458, bytes(24), bytes(512), 8, 0)))
attempt("swapon", lambda: in_child(lambda: libc.swapon(b"/tmp/at", 0)))
attempt("open /dev/fuse", lambda: os.open("/dev/fuse", os.O_RDWR))
attempt("open /dev/loop-control", lambda: os.open("/dev/loop-control", os.O_RDWR))
os.rmdir("/tmp/at")
