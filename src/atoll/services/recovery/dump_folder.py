"""Dump folder: where the dump of a backup lies on its way, locked by the kernel for as long as its process lives.

What a process that was killed left behind has no lock, and goes with the next dump. Nothing of another name is touched.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

_NAME = re.compile(r"dump-[0-9a-f]{16}")


@asynccontextmanager
async def dump_folder(scratch: Path | None) -> AsyncGenerator[Path]:
    """A new folder (mode 0700) in `scratch`, which is made if need be; None: in the system's for temporary files.

    It goes at the end. OSError.
    """
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="atoll-") as temporary:
            yield Path(temporary)
        return
    folder, lock = await asyncio.to_thread(_make, scratch)
    try:
        yield folder
    finally:
        await asyncio.to_thread(_remove, folder, lock)


def _make(scratch: Path) -> tuple[Path, int]:
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    door = _opened(scratch)
    try:
        fcntl.flock(door, fcntl.LOCK_EX)  # nobody takes a folder that is made, and not locked yet, for one left behind
        for left in scratch.iterdir():
            if _NAME.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
                _remove_unless_locked(left)
        folder = scratch / f"dump-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        lock = _opened(folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return folder, lock
    finally:
        os.close(door)


def _remove_unless_locked(folder: Path) -> None:
    try:
        lock = _opened(folder)
    except FileNotFoundError:  # its process has just removed it
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return
    _remove(folder, lock)


def _remove(folder: Path, lock: int) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
