"""Stops the server of a data folder and ends what it left running; `atoll down` calls it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from atoll.cli.failure import Failed, say
from atoll.domain.data_folder import DataFolder
from atoll.domain.errors import Conflict
from atoll.records.data_folder import DataFolderLock
from atoll.sdk.local_server import read_note, remove_note

if TYPE_CHECKING:
    from atoll.settings import Settings

SLACK_S = 20.0  # beyond its own drain, before it is killed
STARTING_S = 10.0  # in which a server that is starting must show itself
LOOK_AGAIN_S = 0.05
ENDS_S = 90.0  # for all sandboxes and the node together
_PID_BYTES_MAX = 32


def stop_all(settings: Settings) -> tuple[int | None, int]:
    """The pid of the server that was stopped, if any, and how many sandboxes were ended. One that is just starting
    is stopped too."""
    stopped: int | None = None
    until = time.monotonic() + STARTING_S
    while True:
        stopped = stop_server(settings.folder, settings.server.drain_s) or stopped
        if not settings.folder.root.is_dir():
            return stopped, 0
        lock = DataFolderLock(settings.folder)
        try:
            lock.acquire()
        except Conflict:
            if time.monotonic() > until:
                raise
            time.sleep(LOOK_AGAIN_S)
            continue
        try:
            return stopped, asyncio.run(_end_sandboxes(settings))
        finally:
            lock.release()


def stop_server(folder: DataFolder, drain_s: float) -> int | None:
    """TERM, wait, KILL. The pid of the server that ran, None when none did."""
    pid = _running(folder)
    if pid is None:
        return None
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if _running(folder) != pid:  # it ended meanwhile, and the number may be somebody else's by now
            return None
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not _ended(handle, drain_s + SLACK_S):
            say(f"the server (pid {pid}) did not end in time: killing it")
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not _ended(handle, SLACK_S):
                raise Failed(f"the server (pid {pid}) does not end")
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Failed(f"the server (pid {pid}) is another user's") from None
    finally:
        os.close(handle)
    remove_note(folder.root, pid)
    return pid


async def _end_sandboxes(settings: Settings) -> int:
    """End every sandbox of the data folder, and all that keeps them; the next start records their ends. How many.

    Nothing but the data folder is needed: neither the database nor the store of blobs is opened.
    """
    from atoll.adapters import open_runtime

    try:
        async with asyncio.timeout(ENDS_S):
            return await open_runtime(settings).shutdown()
    except TimeoutError:
        raise Failed(f"the node of {settings.data} does not end: see {settings.data}/run/node.log") from None


def _running(folder: DataFolder) -> int | None:
    """The pid of the server that holds this folder: as its note says, else as its lock does."""
    note = read_note(folder.root)
    if note is not None and note.alive:
        return note.pid
    try:
        lock = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise Failed(f"{folder.root} is another user's data folder") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(lock, _PID_BYTES_MAX, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(lock)
    return None


def _ended(handle: int, limit_s: float) -> bool:
    """Wait for the process to end; False after `limit_s`."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))
