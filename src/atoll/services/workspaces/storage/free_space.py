"""Free space: a reserve on the server's own file systems, below which nothing new is stored on them.

What is written beyond it would fail somewhere deep inside, and take the database along. Reading, deleting and
collecting go on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from atoll.domain.errors import QuotaExceeded

_log = structlog.get_logger()

KNOWN_S = 1.0  # how long a look at the file systems is good for
SHORT = (
    "the server is short of disk space (workspaces.min_free_bytes): reading and deleting work, nothing new is stored"
)


class StorageFull(QuotaExceeded):
    """Nothing more may be stored."""


class FreeSpace:
    """Looks at the file systems of some folders, which need not exist yet."""

    def __init__(self, folders: Iterable[Path] = (), least_bytes: int = 0) -> None:
        """`least_bytes` 0: no reserve."""
        self._folders = tuple(folders)
        self._least = least_bytes
        self._looked_at = -KNOWN_S
        self._short = False

    async def check(self) -> None:
        """StorageFull when one of them has less than the reserve."""
        if not self._least or not self._folders:
            return
        if time.monotonic() - self._looked_at >= KNOWN_S:
            free = await asyncio.to_thread(lambda: {str(folder): _free_bytes(folder) for folder in self._folders})
            short = {folder: size for folder, size in free.items() if size < self._least}
            if bool(short) != self._short:
                what = "workspaces.disk_short" if short else "workspaces.disk_recovered"
                _log.warning(what, free_bytes=short or free)
            self._short, self._looked_at = bool(short), time.monotonic()
        if self._short:
            raise StorageFull(SHORT)


def _free_bytes(folder: Path) -> int:
    """Of the file system that the folder is, or will be, on."""
    while True:
        try:
            found = os.statvfs(folder)
            return found.f_bavail * found.f_frsize
        except FileNotFoundError:
            folder = folder.parent
