"""Installing agents' programs: fetched or copied, checked, unpacked beside their place, renamed to it; one at a time.

The first task that needs one and `atoll agent install` call it. Whatever ends it, nothing half-made is taken for whole,
and the next start clears it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Corrupt, DeadlineExceeded, Unavailable
from atoll.domain.sandbox import AGENTS_FOLDER
from atoll.services.agents.fetching import fetch
from atoll.services.agents.installed import (
    DESCRIPTION,
    LAYER,
    PARTIAL,
    AgentLayers,
    Installed,
    Progress,
    Told,
    Wanted,
    describe,
    measure,
    read,
)
from atoll.services.agents.unpacking import check, copy, open_to_all, unpack
from atoll.services.deadline import deadline

_log = structlog.get_logger()
_LOCK = "install.lock"
_REMOVED = ".removed"
_LOCK_S = 0.2
_OFFLINE = (
    "; without the internet: let pip or npm use a mirror, or set agents.{agent}.folder to the folder of one that is "
    "on this machine (docs/agents.md)"
)


@dataclass(frozen=True, slots=True)
class InstallLimits:
    """Of one installation."""

    install_s: float = 900.0
    install_bytes: int = 2 * 2**30


class _Cut(Exception):
    """Nobody waits for the thread's work any more."""


class AgentInstalls(AgentLayers):
    """The store of installed programs, `<agent>-<version>/` each. Several servers and commands may share one."""

    def __init__(self, store: Path, wanted: Mapping[str, Wanted], limits: InstallLimits | None = None) -> None:
        super().__init__(store, wanted)
        self._folder = store
        self._limits = limits or InstallLimits()
        self._running: dict[str, asyncio.Task[Installed]] = {}
        self._told: dict[str, list[Told]] = {}

    async def start(self) -> None:
        """Clear what installations that were cut short have left, unless one is at work now."""
        await asyncio.to_thread(self._clear_leftovers)

    async def close(self) -> None:
        """Give up what runs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def install(self, agent: str, progress: Told | None = None) -> Installed:
        """The program that the settings want, installed now if it is not yet; who else asks meanwhile waits for the
        same. Unavailable says what to do, Corrupt: the package is not the one that was expected; TooLarge;
        DeadlineExceeded. Cancelled, it goes on for the next who asks."""
        version = await asyncio.to_thread(self.version, agent)
        found = await asyncio.to_thread(self.installed, agent)
        if found is not None:
            return found
        told = self._told.setdefault(agent, [])
        if progress is not None:
            told.append(progress)
        try:
            task = self._running.get(agent)
            if task is None:
                task = asyncio.create_task(self._install(agent, version), name=f"install {agent}")
                self._running[agent] = task
                task.add_done_callback(lambda done: self._over(agent, done))
            return await asyncio.shield(task)
        finally:
            if progress is not None:
                told.remove(progress)

    def all(self) -> list[Installed]:
        """All that are there, other versions than the settings want included."""
        if not self._folder.is_dir():
            return []
        folders = sorted(entry for entry in self._folder.iterdir() if (entry / DESCRIPTION).is_file())
        return [found for found in map(read, folders) if found is not None and self._is_of(found)]

    async def remove(self, agent: str) -> list[Installed]:
        """Every version of it; tasks that run with one lose it. InvalidInput for an agent that has none."""
        self._of(agent)
        async with self._alone(agent), deadline(self._limits.install_s, f"removing {agent}"):
            gone = [found for found in await asyncio.to_thread(self.all) if found.agent == agent]
            for found in gone:
                await asyncio.to_thread(_discard, found.folder.parent)
        return gone

    def _is_of(self, found: Installed) -> bool:
        return found.folder.parent.name == f"{found.agent}-{found.version}"

    def _over(self, agent: str, task: asyncio.Task[Installed]) -> None:
        self._running.pop(agent, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("agent.install_failed", agent=agent, error=str(error)[:500])

    def _say(self, agent: str, step: str, done_bytes: int = 0, total_bytes: int | None = None) -> None:
        for told in tuple(self._told.get(agent, ())):
            try:
                told(Progress(agent, step, done_bytes, total_bytes))
            except Exception:
                _log.exception("agent.progress_failed", agent=agent)

    async def _install(self, agent: str, version: str) -> Installed:
        async with deadline(self._limits.install_s, f"installing {agent}"), self._alone(agent):
            found = await asyncio.to_thread(self.installed, agent)
            if found is not None:
                return found
            partial = self._folder / f"{agent}-{version}{PARTIAL}"
            await asyncio.to_thread(_discard, partial)
            try:
                return await self._made(agent, version, partial)
            except OSError as error:
                raise Unavailable(f"{agent} could not be installed: {error.strerror or error}") from error
            finally:
                await asyncio.shield(asyncio.to_thread(_discard, partial))

    async def _made(self, agent: str, version: str, partial: Path) -> Installed:
        wanted, layer = self._of(agent), partial / LAYER
        inside = layer / AGENTS_FOLDER.lstrip("/") / agent
        inside.mkdir(parents=True)
        bytes_max = self._limits.install_bytes
        if wanted.folder is not None:
            source, program = str(wanted.folder), wanted.package.program
            self._say(agent, "copying")
            await self._in_thread(agent, "copying", copy, wanted.folder, program, inside, bytes_max)
        else:
            source = wanted.package.source
            archive = await self._fetched(agent, wanted, partial / "fetched")
            crash.point("agents.install.fetched")
            self._say(agent, "checking")
            await asyncio.to_thread(check, archive, wanted.hashes)
            await self._in_thread(agent, "unpacking", unpack, archive, wanted.package.folder, inside, bytes_max)
        program = inside / wanted.package.program
        if not os.access(program, os.X_OK):
            raise Corrupt(f"what was installed for {agent} has no program {wanted.package.program}")
        await asyncio.to_thread(open_to_all, layer)
        held, files = await asyncio.to_thread(measure, layer)
        made = Installed(agent, version, source, layer, held, files, datetime.now(UTC))
        await asyncio.to_thread(describe, partial, made)
        crash.point("agents.install.unpacked")
        final = self._folder / f"{agent}-{version}"
        await asyncio.to_thread(_settle, partial, final)
        crash.point("agents.install.renamed")
        _log.info("agent.installed", agent=agent, version=version, source=source, bytes=held)
        self._say(agent, "done", held, held)
        found = await asyncio.to_thread(read, final)
        if found is None:
            raise Corrupt(f"what was installed for {agent} is not what is on the disk now")
        return found

    async def _fetched(self, agent: str, wanted: Wanted, folder: Path) -> Path:
        self._say(agent, "fetching")
        try:
            return await fetch(
                wanted.package,
                folder,
                self._limits.install_bytes,
                lambda done, total: self._say(agent, "fetching", done, total),
            )
        except Unavailable as error:
            raise Unavailable(error.message + _OFFLINE.format(agent=agent)) from None

    async def _in_thread(self, agent: str, step: str, work: Callable[..., None], *args: object) -> None:
        """Blocking work that tells how far it is, and ends soon after nobody waits for it any more."""
        loop, cut, done = asyncio.get_running_loop(), threading.Event(), 0

        def more(count: int) -> None:
            nonlocal done
            if cut.is_set():
                raise _Cut
            before, done = done, done + count
            if before // 2**24 != done // 2**24:
                loop.call_soon_threadsafe(self._say, agent, step, done)

        self._say(agent, step)
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, more))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            cut.set()
            with contextlib.suppress(_Cut, OSError, AtollError):
                await running
            raise

    @asynccontextmanager
    async def _alone(self, agent: str) -> AsyncGenerator[None]:
        """Nobody else installs here or removes, in this process or another."""
        await asyncio.to_thread(self._folder.mkdir, mode=0o755, parents=True, exist_ok=True)
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            waited = 0.0
            while not _locked(lock):
                if waited == 0.0:
                    self._say(agent, "waiting")
                if waited >= self._limits.install_s:
                    raise DeadlineExceeded("another installation of an agent does not end")
                await asyncio.sleep(_LOCK_S)
                waited += _LOCK_S
            yield
        finally:
            os.close(lock)

    def _clear_leftovers(self) -> None:
        if not self._folder.is_dir():
            return
        try:
            lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # somebody else's store, which this server only reads
        try:
            if _locked(lock):
                for entry in list(self._folder.iterdir()):
                    if entry.suffix in (PARTIAL, _REMOVED):
                        shutil.rmtree(entry, ignore_errors=True)
        finally:
            os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _discard(folder: Path) -> None:
    """Out of its place in one step, then off the disk."""
    gone = folder.with_name(folder.name + _REMOVED)
    shutil.rmtree(gone, ignore_errors=True)
    try:
        os.rename(folder, gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _settle(partial: Path, final: Path) -> None:
    """Rename it to its place, for good; what is there is broken, or it would have been found."""
    shutil.rmtree(partial / "fetched", ignore_errors=True)
    _discard(final)
    with open(partial / DESCRIPTION, "rb") as file:
        os.fsync(file.fileno())
    os.rename(partial, final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
