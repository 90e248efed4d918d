"""Stops the server of a data folder and ends what it left running; `atoll down` calls it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
from typing import TYPE_CHECKING

from atoll.cli.failure import Failed, say
from atoll.domain.data_folder import DataFolder
from atoll.sdk.local_server import read_note, remove_note

if TYPE_CHECKING:
    from atoll.app import Application
    from atoll.settings import Settings

SLACK_S = 20.0  # beyond its own drain, before it is killed
KILLS_AT_ONCE = 16
_PID_BYTES_MAX = 32


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


async def end_sandboxes(settings: Settings) -> int:
    """End every sandbox of the data folder, then the node; the records say that they were killed. How many."""
    from atoll.app import create_app
    from atoll.telemetry import logs

    logs.configure(settings.logs.format, "error")
    app = create_app(settings)
    async with app.running(serving=False):
        count = await _kill_all(app)
        await app.runtime.shutdown()
    return count


async def _kill_all(app: Application) -> int:
    from atoll.domain.errors import Conflict, NotFound
    from atoll.domain.key import DEFAULT_SCOPES, KeyKind
    from atoll.domain.principal import Principal
    from atoll.domain.sandbox import LIVE, Sandbox

    slots = asyncio.Semaphore(KILLS_AT_ONCE)

    async def kill(sandbox: Sandbox) -> None:
        async with slots:
            try:
                await app.sandboxes.kill(Principal(sandbox.owner, KeyKind.OWNER, DEFAULT_SCOPES), sandbox.id)
            except (Conflict, NotFound):
                pass  # it ended by itself

    found = await app.records.list_sandboxes(states=LIVE, removed=None, limit=1_000_000)
    await asyncio.gather(*(kill(sandbox) for sandbox in found))
    return len(found)


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
