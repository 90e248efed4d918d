"""Read what tells about the kernel and the machine."""

from __future__ import annotations

import os

from prelude import attempt, content, libc

EMPTY = (
    "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/port",
    "/proc/sched_debug", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/kpagecount", "/proc/kpageflags",
    "/proc/kpagecgroup", "/proc/interrupts", "/proc/cmdline", "/proc/latency_stats", "/proc/pagetypeinfo",
    "/sys/kernel/debug/sched/debug", "/sys/firmware/dmi/tables/DMI", "/sys/kernel/notes", "/sys/kernel/vmcoreinfo",
    "/proc/1/environ", "/proc/1/maps", "/proc/1/syscall", "/proc/1/stack", "/proc/1/auxv",
)  # fmt: skip
for path in EMPTY:
    attempt(f"read {path}", lambda path=path: content(path))
for folder in ("/sys", "/sys/firmware", "/sys/kernel/debug", "/proc/acpi", "/proc/asound", "/proc/scsi"):
    attempt(f"list {folder}", lambda folder=folder: os.listdir(folder) or None)
BUFFER = bytearray(4096)
attempt("syslog read all", lambda: libc.klogctl(3, bytes(BUFFER), len(BUFFER)))
attempt("syslog size", lambda: libc.klogctl(10, None, 0))


def addresses(path: str, column: int) -> list[str] | None:
    """Kernel addresses that are not blanked."""
    with open(path) as file:
        words = [line.split()[column] for line in file if len(line.split()) > column]
    return [word for word in words if word.strip("0x-") and any(c in "123456789abcdef" for c in word)][:3] or None


attempt("kallsyms", lambda: addresses("/proc/kallsyms", 0))
attempt("modules", lambda: addresses("/proc/modules", 5))
attempt("iomem", lambda: addresses("/proc/iomem", 0))
attempt("own kernel stack", lambda: content("/proc/self/stack"))
