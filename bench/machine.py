"""What /proc says about memory, processes and mounts; the parts of the benchmark that weigh sandboxes ask it."""

from __future__ import annotations

import os
from dataclasses import dataclass


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pss_bytes(pid: int) -> int:
    """Its share of memory, shared pages divided among those who share them; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def available_bytes() -> int:
    """MemAvailable: what the kernel could still give out."""
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def parents() -> dict[int, int]:
    """Every process's parent."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    found[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def namespaced(pids: set[int]) -> set[int]:
    """Those that live in a pid namespace below ours."""
    own = os.stat("/proc/self/ns/pid").st_ino
    found: set[int] = set()
    for pid in pids:
        try:
            if os.stat(f"/proc/{pid}/ns/pid").st_ino != own:
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class Traces:
    """What sandboxes could leave on a machine."""

    processes: int
    mounts: int
    cgroups: int
    links: int

    @classmethod
    def now(cls) -> Traces:
        with open("/proc/self/mounts") as file:
            mounts = sum(1 for _ in file)
        return cls(
            processes=len(namespaced(set(parents()))),
            mounts=mounts,
            cgroups=sum("/atoll-" in folder for folder, _, _ in os.walk("/sys/fs/cgroup")),
            links=len(os.listdir("/sys/class/net")),
        )

    def beyond(self, before: Traces) -> int:
        """How many things are here that were not there before."""
        names = ("processes", "mounts", "cgroups", "links")
        return sum(max(0, getattr(self, name) - getattr(before, name)) for name in names)
