"""Reach a cgroup file system: release_agent, other groups' members, one's own limits."""

from __future__ import annotations

import os

from prelude import attempt, libc


def opens(path: str) -> int:
    return os.open(path, os.O_WRONLY)


with open("/proc/self/mounts") as table:
    mounted = [line.split()[1] for line in table if line.split()[2].startswith("cgroup")]
for folder in {*mounted, "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"}:
    for name in ("release_agent", "cgroup.procs", "notify_on_release", "cgroup.subtree_control", "cgroup.kill"):
        attempt(f"open {folder}/{name}", lambda path=f"{folder}/{name}": opens(path))
for name in ("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us", "memory.max", "cpu.max"):
    attempt(f"open {name}", lambda name=name: opens(f"/sys/fs/cgroup/{name}"))
os.makedirs("/tmp/group", exist_ok=True)
for kind, options in ((b"cgroup2", None), (b"cgroup", b"memory"), (b"cgroup", b"none,name=x"), (b"cpuset", None)):
    attempt(f"mount {kind} {options}", lambda k=kind, o=options: libc.mount(b"none", b"/tmp/group", k, 0, o))
    libc.umount2(b"/tmp/group", 2)
os.rmdir("/tmp/group")
attempt(
    "own group's name",
    lambda: [line for line in open("/proc/self/cgroup").read().split() if line.rpartition(":")[2] != "/"] or None,
)
