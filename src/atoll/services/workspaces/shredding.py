"""Shredding: what a deleted workspace leaves loses its keys: its snapshots theirs, its lineage with the last of it."""

from __future__ import annotations

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError
from atoll.domain.workspace import Snapshot, Workspace
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.archives.snapshot_files import SnapshotFiles
from atoll.services.workspaces.storage.keys import LineageKeys

_log = structlog.get_logger()

LISTED_MAX = 1_000_000


class Shredding:
    """Destroys keys that nothing needs any more; every call may be repeated."""

    def __init__(
        self, records: Records, access: WorkspaceAccess, keys: LineageKeys, files: SnapshotFiles | None = None
    ) -> None:
        self._records = records
        self._access = access
        self._keys = keys
        self._files = files

    async def after(self, workspace: Workspace, actor: str = "system") -> None:
        """All that a deleted workspace had: its snapshots, and its lineage's key when no other workspace has it."""
        for snapshot in await self._records.list_snapshots(workspace=workspace.id, limit=LISTED_MAX):
            await self.delete(workspace, snapshot, actor)
        crash.point("workspaces.delete.forgotten")
        lineage = await self._records.get_lineage(workspace.lineage)
        if lineage is None or lineage.key is None:
            return
        revisions = await self._records.list_revisions(lineage=workspace.lineage, limit=LISTED_MAX)
        sharing = [await self._records.get_workspace(one) for one in {revision.workspace for revision in revisions}]
        if all(one is None or one.deleted_at is not None for one in sharing):
            event = self._access.event("lineage.shredded", workspace, actor, lineage=workspace.lineage)
            await self._keys.shred(workspace.lineage, event)

    async def delete(self, workspace: Workspace, snapshot: Snapshot, actor: str) -> bool:
        """One snapshot, its own key and its copy first; whether it was there."""
        if self._files is not None:
            await self._files.remove(snapshot)
        if snapshot.lineage != workspace.lineage:
            event = self._access.event("lineage.shredded", workspace, actor, lineage=snapshot.lineage)
            await self._keys.shred(snapshot.lineage, event)
            crash.point("workspaces.snapshot.shredded")
        event = self._access.event("snapshot.deleted", workspace, actor, snapshot=snapshot.id)
        return await self._records.delete_snapshot(workspace.owner, snapshot.id, event)

    def put_off(self, workspace: Workspace, error: AtollError) -> None:
        _log.warning("workspace.unshredded", workspace_id=workspace.id, error=error.message)
