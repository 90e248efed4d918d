"""See and touch processes of others; GIVEN names some of the host's."""

from __future__ import annotations

import ctypes
import os

from prelude import GIVEN, attempt, libc


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def reads_memory(pid: int, address: int) -> int:
    buffer = ctypes.create_string_buffer(16)
    local = _Vector(ctypes.addressof(buffer), 16)
    remote = _Vector(address, 16)
    return libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


def takes_descriptor(pid: int) -> int:
    return libc.syscall(438, os.pidfd_open(pid), 0, 0)


def titles(marks: list[str]) -> list[str] | None:
    """Processes of others that /proc shows."""
    found: list[str] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    title = file.read().decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if any(mark in title for mark in marks):
                found.append(title[:60])
    return found or None


def _foreign(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        title = file.read()
    return any(mark.encode() in title for mark in GIVEN["marks"])


attempt("titles", lambda: titles(GIVEN["marks"]))
for pid in GIVEN["pids"]:
    if pid in GIVEN.get("own", []):
        continue
    attempt(f"look at {pid}", lambda pid=pid: os.listdir(f"/proc/{pid}/fd") if _foreign(pid) else None)
    attempt(
        f"environment of {pid}", lambda pid=pid: open(f"/proc/{pid}/environ", "rb").read() if _foreign(pid) else None
    )


# pid 1 is the sidekick, which has another user
for pid in (1,):
    attempt(f"ptrace attach {pid}", lambda pid=pid: libc.ptrace(16, pid, 0, 0))
    attempt(f"ptrace seize {pid}", lambda pid=pid: libc.ptrace(0x4206, pid, 0, 0))
    attempt(f"process_vm_readv {pid}", lambda pid=pid: reads_memory(pid, 0x40_0000))
    attempt(f"pidfd_getfd {pid}", lambda pid=pid: takes_descriptor(pid))
    attempt(f"open /proc/{pid}/mem", lambda pid=pid: os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    attempt(f"descriptors of {pid}", lambda pid=pid: os.listdir(f"/proc/{pid}/fd"))
    attempt(f"kcmp {pid}", lambda pid=pid: libc.syscall(312, pid, os.getpid(), 0, 0, 0))
    attempt(f"prlimit {pid}", lambda pid=pid: libc.prlimit(pid, 7, bytes(16), None))
