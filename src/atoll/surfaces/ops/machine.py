"""The machine as health tells of it: how full its memory and its data disk are, and what this server was given.

Numbers of the host, and of no tenant.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MIB = 2**20
FULL_PERCENT = 95  # from there on a check says unhealthy; it makes the whole answer so in neither case


def memory() -> dict[str, Any]:
    """Of the host: what programs could still have is free, caches included."""
    sizes: dict[str, int] = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            sizes[name] = int(rest.split()[0]) * 1024
        total, free = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return {"status": "healthy", "detail": "unknown"}
    return _filled(total, free)


def disk(folder: Path) -> dict[str, Any]:
    """The file system of the data folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return {"status": "healthy", "detail": "unknown"}
    return _filled(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def configured(is_so: bool) -> dict[str, Any]:
    """A check of something that a server may do without."""
    return {"status": "healthy" if is_so else "unhealthy", "detail": "configured" if is_so else "not configured"}


def mount_of_buckets(door: bool) -> dict[str, Any]:
    """Testbase's check of its gcsfuse mount: here nothing is mounted, and a bucket is a door to the workspaces."""
    shown = "the object-store door is open" if door else "not used"
    return {"status": "healthy", "detail": shown}


def _filled(total: int, free: int) -> dict[str, Any]:
    used = max(0, total - free)
    percent = round(100 * used / total) if total else 0
    return {
        "status": "healthy" if percent < FULL_PERCENT else "unhealthy",
        "total": f"{total // MIB} MB",
        "used": f"{used // MIB} MB",
        "free": f"{free // MIB} MB",
        "usagePercent": percent,
    }
