"""Snapshot files: a copy of each snapshot as `{user}/{id}.tar.zst` in a folder of the operator's, where one is set.

Copies only: nothing is ever restored from them by itself, and an import takes them like any archive. The archive's one
root directory is the user's id.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import aclosing, suppress
from pathlib import Path

import structlog

from atoll.domain.errors import AtollError, InvalidInput, Unavailable
from atoll.domain.workspace import Snapshot
from atoll.records.base import Records
from atoll.services.deadline import deadline
from atoll.services.workspaces.archives.copy_upkeep import CopyUpkeep
from atoll.services.workspaces.archives.finishing import finish
from atoll.services.workspaces.archives.tree_archives import TreeArchives
from atoll.services.workspaces.storage.free_space import FreeSpace

_log = structlog.get_logger()

SUFFIX = ".tar.zst"
PARTIAL = ".partial"
LISTED_MAX = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._@-]{0,127}")
_SNAPSHOT_FILE = re.compile(r"snap_[0-9_]{1,40}\.tar\.zst")


class SnapshotFiles:
    """Keeps the folder equal to what the records know: one copy at a time, in a task of its own."""

    def __init__(
        self,
        folder: Path,
        records: Records,
        archives: TreeArchives,
        copy_s: float = 3_600.0,
        disk: FreeSpace | None = None,
    ) -> None:
        self._folder = folder
        self._disk = disk or FreeSpace()
        self._records = records
        self._archives = archives
        self._copy_s = copy_s
        self._waiting: dict[str, Snapshot] = {}  # by the name of the copy
        self._copying: dict[str, asyncio.Task[None]] = {}
        self._upkeep = CopyUpkeep(
            "snapshot files", self.reconcile, self._work_off, unchecked="workspaces.snapshot_files_unchecked"
        )

    def start(self) -> None:
        self._upkeep.start()

    async def close(self) -> None:
        """A copy that is being made is given up."""
        await self._upkeep.close()

    def made(self, snapshot: Snapshot) -> None:
        """It is recorded: a copy follows."""
        self._waiting[_name_of(snapshot)] = snapshot
        self._upkeep.wake()

    def path(self, snapshot: Snapshot) -> Path:
        """Where its copy lies. InvalidInput when its owner's id cannot be a folder's name."""
        if not _NAME.fullmatch(snapshot.owner) or not _NAME.fullmatch(snapshot.id):
            raise InvalidInput(f"{snapshot.owner!r} cannot be the name of a folder of snapshot files", field="user")
        return self._folder / snapshot.owner / (snapshot.id + SUFFIX)

    async def keep(self, snapshot: Snapshot) -> Path:
        """Write its copy: whole and synced under its name, or not at all. Corrupt, StorageFull; Unavailable when the
        disk fails."""
        path = self.path(snapshot)
        await self._disk.check()
        partial = path.with_name(path.name + PARTIAL)
        try:
            file = await finish(_open, partial)
            try:
                pieces = self._archives.export(snapshot.lineage, snapshot.tree, snapshot.owner.encode())
                async with aclosing(pieces):
                    async for piece in pieces:
                        await self._disk.check()
                        await finish(_write, file, piece)
                await finish(os.fsync, file)
            finally:
                os.close(file)
            await finish(_put, partial, path)
        except BaseException as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise Unavailable(f"snapshot file {path}: {error.strerror}") from None
            raise
        return path

    async def remove(self, snapshot: Snapshot) -> None:
        """Delete its copy, also one that is being made; none there is no error. Unavailable when the disk fails."""
        name = _name_of(snapshot)
        self._waiting.pop(name, None)
        if (copying := self._copying.get(name)) is not None:
            await _ended(copying)
        try:
            path = self.path(snapshot)
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except InvalidInput:
            return
        except OSError as error:
            raise Unavailable(f"snapshot file of {snapshot.id}: {error.strerror}") from None

    async def reconcile(self) -> None:
        """Write copies that are missing, remove those of snapshots that are gone and what a crash left half-written.

        Only files that are named as snapshots are are ever removed. What fails for one is logged.
        """
        snapshots = await self._records.list_snapshots(limit=LISTED_MAX)
        wanted = {_name_of(one): one for one in snapshots}
        there = await asyncio.to_thread(_listed, self._folder)
        for name in there - wanted.keys():
            await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)
        self._waiting |= {name: wanted[name] for name in wanted.keys() - there}
        await self._work_off()

    async def _work_off(self) -> None:
        while self._waiting:
            name = next(iter(self._waiting))
            work = asyncio.create_task(self._keep_or_log(self._waiting.pop(name)), name=f"copy {name}")
            self._copying[name] = work
            try:
                await asyncio.wait([work])
            finally:
                await _ended(work)
                del self._copying[name]

    async def _keep_or_log(self, snapshot: Snapshot) -> None:
        """As `keep`, for a snapshot that is there whether or not it has a copy; `reconcile` tries again. One under a
        key of its own gets none: destroying that key must be the end of it."""
        try:
            workspace = await self._records.get_workspace(snapshot.workspace)
            if workspace is None or workspace.lineage != snapshot.lineage or await self._is_gone(snapshot):
                return
            async with deadline(self._copy_s, "copying the snapshot"):
                path = await self.keep(snapshot)
            if await self._is_gone(snapshot):  # it went between our look and the copy's beginning
                await asyncio.to_thread(path.unlink, missing_ok=True)
        except (AtollError, OSError) as error:
            _log.warning("workspaces.snapshot_file_missing", snapshot=snapshot.id, error=str(error))
        except Exception:
            _log.exception("workspaces.snapshot_file_missing", snapshot=snapshot.id)

    async def _is_gone(self, snapshot: Snapshot) -> bool:
        return await self._records.find_snapshot(snapshot.owner, snapshot.id) is None


async def _ended(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.wait([work])


def _name_of(snapshot: Snapshot) -> str:
    return f"{snapshot.owner}/{snapshot.id}{SUFFIX}"


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _write(file: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]


def _put(partial: Path, path: Path) -> None:
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _listed(folder: Path) -> set[str]:
    """`{user}/{file}` of each file named as a copy, or half of one, is."""
    if not folder.is_dir():
        return set()
    return {
        f"{user.name}/{file.name}"
        for user in folder.iterdir()
        if user.is_dir()
        for file in user.iterdir()
        if _SNAPSHOT_FILE.fullmatch(file.name.removesuffix(PARTIAL))
    }
