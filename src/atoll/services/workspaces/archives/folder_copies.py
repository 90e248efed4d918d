"""Folder copies: the files of each workspace's head as plain files in a folder of the operator's, where one is set.

    {folder}/{user}/{name}             a link to
    {folder}/{user}/.atoll/{id}/{tree} the copy of one state, whole

A new head's copy is made beside the old one, takes over the files that are the same, and is linked in one step. Copies
only: nothing is ever read from them, and what somebody changes in one stays until its file changes in the workspace.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import aclosing, suppress
from pathlib import Path

import structlog

from atoll.domain.chunk_ids import HOLE
from atoll.domain.errors import AtollError, NotFound
from atoll.domain.tree import Entry
from atoll.domain.workspace import Revision, Workspace
from atoll.records.base import Records
from atoll.services.deadline import deadline
from atoll.services.workspaces.archives.copy_upkeep import CopyUpkeep
from atoll.services.workspaces.archives.finishing import finish
from atoll.services.workspaces.archives.plain_tree import PlainTree
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.free_space import FreeSpace
from atoll.services.workspaces.storage.manifests import Manifests

_log = structlog.get_logger()

OURS = ".atoll"
PARTIAL = ".partial"
LINK = ".link"
NAME_BYTES_MAX = 255
LISTED_MAX = 1_000_000
PAUSE_S = 0.1  # one copy for a burst of changes
_USER = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._@-]{0,127}")
_WORKSPACE = re.compile(r"ws_[0-9a-f]{32}")
_TREE = re.compile(r"[0-9a-f]{64}")
_OUR_TARGET = re.compile(rf"{re.escape(OURS)}/{_WORKSPACE.pattern}/{_TREE.pattern}")
_OUR_COPY = re.compile(rf"{_TREE.pattern}({re.escape(PARTIAL)})?|{re.escape(LINK)}")


class FolderCopies:
    """Keeps the folder equal to the heads of all workspaces: one copy at a time, in a task of its own."""

    def __init__(
        self,
        folder: Path,
        records: Records,
        manifests: Manifests,
        chunks: ChunkStore,
        copy_s: float = 3_600.0,
        disk: FreeSpace | None = None,
    ) -> None:
        self._folder = folder
        self._disk = disk or FreeSpace()
        self._records = records
        self._manifests = manifests
        self._chunks = chunks
        self._copy_s = copy_s
        self._waiting: dict[str, None] = {}
        self._upkeep = CopyUpkeep(
            "workspace folders",
            self.reconcile,
            self._work_off,
            unchecked="workspace.folders_unchecked",
            pause_s=PAUSE_S,
        )

    def start(self) -> None:
        self._upkeep.start()

    async def close(self) -> None:
        """A copy that is being made is given up."""
        await self._upkeep.close()

    def changed(self, workspace_id: str) -> None:
        """It has a new head or name, or is deleted."""
        self._waiting[workspace_id] = None
        self._upkeep.wake()

    async def reconcile(self) -> None:
        """Bring every copy to its head, and remove those of workspaces that are gone."""
        workspaces = await self._records.list_workspaces(limit=LISTED_MAX)
        names = {(one.owner, name_of(one)) for one in workspaces}
        await finish(_sweep, self._folder, {(one.owner, one.id) for one in workspaces}, names)
        for workspace in workspaces:
            await self._quietly(workspace.id)

    async def follow(self, workspace_id: str) -> None:
        """Bring one workspace's copy to its head. Corrupt, NotFound, StorageFull; OSError when the disk fails or
        something of the operator's own stands where the link belongs."""
        workspace = await self._records.get_workspace(workspace_id)
        if workspace is None or not _USER.fullmatch(workspace.owner):
            return
        user = self._folder / workspace.owner
        if workspace.deleted_at is not None:
            await finish(_remove, user, workspace.id)
            return
        head = await self._records.get_revision(workspace.head)
        if head is None:
            return
        copies = user / OURS / workspace.id
        await finish(_make_folders, copies)
        if not (copies / head.tree).is_dir():
            await self._copy(workspace, head, copies)
        await finish(_put, user, name_of(workspace), workspace.id, head.tree)

    async def _copy(self, workspace: Workspace, head: Revision, copies: Path) -> None:
        await self._disk.check()
        entries = await self._manifests.load(head.lineage, head.tree)
        old, before = await self._before(workspace, copies)
        partial = copies / (head.tree + PARTIAL)
        await finish(_discard, partial)
        try:
            with PlainTree(partial, old) as tree:
                missing = await finish(tree.lay, entries, before)
                await self._write(tree, head.lineage, missing)
                await finish(tree.link, entries)
                await finish(tree.sync)
            partial.rename(copies / head.tree)
        except BaseException:
            await finish(_discard, partial)
            raise

    async def _write(self, tree: PlainTree, lineage: str, files: list[Entry]) -> None:
        ids = (chunk for entry in files for chunk in entry.chunk_ids())
        async with aclosing(self._chunks.fetch(lineage, ids)) as contents:
            for entry in files:
                await finish(tree.begin, entry)
                for piece in entry.pieces():
                    if piece.id != HOLE:
                        await self._disk.check()
                        await finish(tree.write, piece.offset, (await anext(contents))[1])
                await finish(tree.end, entry)

    async def _before(self, workspace: Workspace, copies: Path) -> tuple[Path | None, dict[bytes, Entry]]:
        """A whole copy that there is, and its entries."""
        for name in await finish(os.listdir, copies):
            if _TREE.fullmatch(name):
                with suppress(AtollError):  # that tree is collected already
                    entries = await self._manifests.load(workspace.lineage, name)
                    return copies / name, {entry.path: entry for entry in entries}
        return None, {}

    async def _work_off(self) -> None:
        while self._waiting:
            workspace_id = next(iter(self._waiting))
            del self._waiting[workspace_id]
            await self._quietly(workspace_id)

    async def _quietly(self, workspace_id: str) -> None:
        try:
            async with deadline(self._copy_s, "copying the workspace's files"):
                await self.follow(workspace_id)
        except NotFound:
            pass  # it was deleted meanwhile, or has another head: that comes next
        except (AtollError, OSError) as error:
            _log.warning("workspace.folder_behind", workspace_id=workspace_id, error=str(error))
        except Exception:
            _log.exception("workspace.folder_behind", workspace_id=workspace_id)


def name_of(workspace: Workspace) -> str:
    """What its link is called: its name, or its id where a name cannot be a file's or would be hidden."""
    hidden = workspace.name.startswith(".")
    return workspace.id if hidden or len(workspace.name.encode()) > NAME_BYTES_MAX else workspace.name


def _discard(path: Path) -> None:
    """What is there goes, a folder with all that is in it; nothing there is no error."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make_folders(copies: Path) -> None:
    for folder in reversed((copies, *copies.parents[:3])):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _put(user: Path, name: str, workspace_id: str, tree: str) -> None:
    """Its one link leads to that copy; other copies of it go."""
    target = f"{OURS}/{workspace_id}/{tree}"
    if _leads_to(user / name) != target:
        if os.path.lexists(user / name) and not _OUR_TARGET.fullmatch(_leads_to(user / name)):
            raise FileExistsError(f"{user / name} is not ours: what stands there has to go before the files can")
        link = user / OURS / workspace_id / LINK
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.rename(user / name)
        _unlink(user, workspace_id, but=name)
    for other in (user / OURS / workspace_id).iterdir():
        if other.name != tree and _OUR_COPY.fullmatch(other.name):
            _discard(other)


def _remove(user: Path, workspace_id: str) -> None:
    """Its links and its copies. A second call does nothing."""
    _unlink(user, workspace_id)
    _discard(user / OURS / workspace_id)


def _unlink(user: Path, workspace_id: str, but: str = "") -> None:
    if user.is_dir():
        for path in user.iterdir():
            if path.name != but and _leads_to(path).startswith(f"{OURS}/{workspace_id}/"):
                path.unlink()


def _leads_to(path: Path) -> str:
    """What a link says; "" for anything else."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _sweep(folder: Path, workspaces: set[tuple[str, str]], names: set[tuple[str, str]]) -> None:
    """Copies of other workspaces go, and links of ours by other names: (owner, id) and (owner, name). What is not named
    as ours stays."""
    for user in {path.parent for path in folder.glob(f"*/{OURS}")}:
        if not _USER.fullmatch(user.name) or not (user / OURS).is_dir():
            continue
        for path in (user / OURS).iterdir():
            if (user.name, path.name) not in workspaces and _WORKSPACE.fullmatch(path.name):
                _discard(path)
        for path in user.iterdir():
            if (user.name, path.name) not in names and _OUR_TARGET.fullmatch(_leads_to(path)):
                path.unlink()
