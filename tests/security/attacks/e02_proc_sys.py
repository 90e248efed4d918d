"""Open for writing what changes the kernel. Nothing is written."""

from __future__ import annotations

import os

from prelude import attempt


def opens(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK)


for top in ("/proc/sys", "/sys"):
    for folder, _, names in os.walk(top):
        for name in names:
            attempt(f"open {folder}/{name}", lambda path=f"{folder}/{name}": opens(path))
SINGLE = (
    "/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/proc/1/oom_adj", "/proc/self/oom_score_adj", "/proc/mtrr",
    "/proc/1/attr/current", "/proc/self/uid_map", "/proc/self/setgroups", "/proc/1/sched", "/proc/1/coredump_filter",
    "/proc/acpi/wakeup", "/proc/pressure/memory", "/proc/slabinfo", "/proc/scsi/scsi", "/proc/irq/default_smp_affinity",
    "/proc/self/timerslack_ns", "/proc/1/timens_offsets", "/proc/self/sessionid", "/proc/self/loginuid",
    "/proc/fs/nfsd/threads", "/proc/driver/rtc", "/proc/bus/pci/00/00.0", "/proc/kcore", "/proc/1/mem",
    "/proc/cmdline", "/proc/kallsyms", "/proc/keys", "/proc/kmsg", "/proc/timer_list",
)  # fmt: skip
for path in SINGLE:
    attempt(f"open {path}", lambda path=path: opens(path))
attempt("create in /proc", lambda: os.open("/proc/new", os.O_WRONLY | os.O_CREAT))
attempt("chmod in /proc", lambda: os.chmod("/proc/sys", 0o777) or 1)
