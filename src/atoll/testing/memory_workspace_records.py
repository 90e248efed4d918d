"""The workspaces' part of MemoryRecords, in dictionaries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.workspace import (
    Lineage,
    Revision,
    RevisionState,
    Share,
    Snapshot,
    Workspace,
)
from atoll.records.workspaces import SharedWorkspace
from atoll.testing.memory_chunk_records import MemoryChunkRecords

T = TypeVar("T", Workspace, Snapshot)


class MemoryWorkspaceRecords(MemoryChunkRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._workspaces: dict[str, Workspace] = {}
        self._revisions: dict[str, Revision] = {}
        self._snapshots: dict[tuple[str, str], Snapshot] = {}
        self._shares: dict[tuple[str, str], Share] = {}

    # workspaces

    async def add_workspace(
        self,
        workspace: Workspace,
        revision: Revision,
        lineage: Lineage | None,
        event: Event,
        *,
        quota: int | None = None,
    ) -> None:
        self._check()
        kept = sum(known.owner == workspace.owner and known.deleted_at is None for known in self._workspaces.values())
        if quota is not None and kept >= quota:
            raise QuotaExceeded(f"workspace limit reached ({kept}/{quota})")
        self._hold_owner(workspace.owner)
        if lineage is None:
            self._hold_lineage(workspace.lineage)
        elif lineage.id in self._lineages:
            raise Conflict(f"lineage {lineage.id} exists already")
        if workspace.id in self._workspaces or revision.id in self._revisions:
            raise Conflict(f"workspace {workspace.id} exists already")
        self._check_name(workspace)
        if lineage is not None:
            self._lineages[lineage.id] = lineage
        self._workspaces[workspace.id] = workspace
        self._revisions[revision.id] = revision
        self._log(event)

    async def swap_workspace(self, workspace: Workspace, event: Event | None) -> Workspace:
        self._check()
        self._check_version(workspace)
        self._check_name(workspace)
        after = self._workspaces[workspace.id] = replace(workspace, version=workspace.version + 1)
        self._log(event)
        return after

    async def get_workspace(self, workspace_id: str) -> Workspace | None:
        self._check()
        return self._workspaces.get(workspace_id)

    async def find_workspace(self, owner: str, name: str) -> Workspace | None:
        self._check()
        return self._named(owner, name)

    async def list_workspaces(
        self,
        *,
        owner: str | tuple[str, ...] | None = None,
        deleted: bool | None = False,
        with_tree: bool = False,
        limit: int = 1000,
    ) -> list[Workspace]:
        self._check()
        found = [
            workspace
            for workspace in self._workspaces.values()
            if (owner is None or workspace.owner in ((owner,) if isinstance(owner, str) else owner))
            and (deleted is None or (workspace.deleted_at is not None) is deleted)
            and (not with_tree or workspace.tree_id is not None)
        ]
        return _newest_first(found)[:limit]

    async def delete_workspace_records(self, workspace_id: str) -> None:
        self._check()
        stored = self._workspaces.get(workspace_id)
        if stored is None:
            return
        if stored.deleted_at is None:
            raise Conflict(f"workspace {workspace_id} is not deleted")
        self._shares = {key: one for key, one in self._shares.items() if one.workspace != workspace_id}
        self._snapshots = {key: one for key, one in self._snapshots.items() if one.workspace != workspace_id}
        self._revisions = {key: one for key, one in self._revisions.items() if one.workspace != workspace_id}
        del self._workspaces[workspace_id]

    # revisions

    async def add_revision(self, revision: Revision, workspace: Workspace, event: Event) -> Workspace:
        self._check()
        self._hold_lineage(revision.lineage)
        self._check_version(workspace)
        self._check_name(workspace)
        if revision.id in self._revisions or self._numbered(workspace.id, revision.number) is not None:
            raise Conflict(f"workspace {workspace.id} has a revision {revision.number} already")
        self._revisions[revision.id] = revision
        after = replace(workspace, head=revision.id, version=workspace.version + 1)
        self._workspaces[workspace.id] = after
        self._log(event)
        return after

    async def get_revision(self, revision_id: str) -> Revision | None:
        self._check()
        return self._revisions.get(revision_id)

    async def find_revision(self, workspace_id: str, number: int) -> Revision | None:
        self._check()
        return self._numbered(workspace_id, number)

    async def list_revisions(
        self, *, workspace: str | None = None, lineage: str | None = None, before: int | None = None, limit: int = 1000
    ) -> list[Revision]:
        self._check()
        found = [
            revision
            for revision in self._revisions.values()
            if (workspace is None or revision.workspace == workspace)
            and (lineage is None or revision.lineage == lineage)
            and (before is None or revision.number < before)
        ]
        found.sort(key=lambda revision: (revision.number, revision.id), reverse=True)
        while 0 < limit < len(found) and found[limit].number == found[limit - 1].number:
            limit += 1
        return found[:limit]

    async def set_revision_state(self, revision_id: str, state: RevisionState, event: Event) -> None:
        self._check()
        stored = self._revisions.get(revision_id)
        if stored is None:
            raise NotFound(f"revision {revision_id} does not exist")
        self._revisions[revision_id] = replace(stored, state=state)
        self._log(event)

    async def delete_revisions(self, revision_ids: Collection[str], event: Event) -> int:
        self._check()
        needed = {workspace.head for workspace in self._workspaces.values()}
        needed |= {snapshot.revision for snapshot in self._snapshots.values()}
        going = self._revisions.keys() & (set(revision_ids) - needed)
        for revision_id in going:
            del self._revisions[revision_id]
        if going:
            self._log(event)
        return len(going)

    # snapshots

    async def add_snapshot(self, snapshot: Snapshot, event: Event) -> None:
        self._check()
        if snapshot.revision not in self._revisions:
            raise NotFound(f"revision {snapshot.revision} does not exist")
        self._hold_lineage(snapshot.lineage)
        names = {known.name for known in self._snapshots.values() if known.workspace == snapshot.workspace}
        taken = snapshot.name is not None and snapshot.name in names
        if taken or (snapshot.owner, snapshot.id) in self._snapshots:
            raise Conflict(f"there is a snapshot {snapshot.name or snapshot.id!r} already")
        self._snapshots[snapshot.owner, snapshot.id] = snapshot
        self._log(event)

    async def find_snapshot(self, owner: str, snapshot_id: str) -> Snapshot | None:
        self._check()
        return self._snapshots.get((owner, snapshot_id))

    async def list_snapshots(
        self, *, owner: str | None = None, workspace: str | None = None, lineage: str | None = None, limit: int = 1000
    ) -> list[Snapshot]:
        self._check()
        found = [
            snapshot
            for snapshot in self._snapshots.values()
            if (owner is None or snapshot.owner == owner)
            and (workspace is None or snapshot.workspace == workspace)
            and (lineage is None or snapshot.lineage == lineage)
        ]
        return _newest_first(found)[:limit]

    async def delete_snapshot(self, owner: str, snapshot_id: str, event: Event) -> bool:
        self._check()
        there = self._snapshots.pop((owner, snapshot_id), None) is not None
        if there:
            self._log(event)
        return there

    # shares

    async def put_share(self, share: Share, event: Event) -> None:
        self._check()
        if share.workspace not in self._workspaces:
            raise NotFound(f"workspace {share.workspace} does not exist")
        self._hold_owner(share.principal)
        self._shares[share.workspace, share.principal] = share
        self._log(event)

    async def delete_share(self, workspace_id: str, principal: str, event: Event) -> bool:
        self._check()
        there = self._shares.pop((workspace_id, principal), None) is not None
        if there:
            self._log(event)
        return there

    async def get_share(self, workspace_id: str, principal: str) -> Share | None:
        self._check()
        return self._shares.get((workspace_id, principal))

    async def list_shares(self, workspace_id: str) -> list[Share]:
        self._check()
        found = [share for share in self._shares.values() if share.workspace == workspace_id]
        return sorted(found, key=lambda share: share.principal)

    async def list_shared_workspaces(self, principal: str, limit: int = 1000) -> list[SharedWorkspace]:
        self._check()
        mine = {share.workspace: share.permission for share in self._shares.values() if share.principal == principal}
        found = [self._workspaces[workspace_id] for workspace_id in mine]
        theirs = [workspace for workspace in found if workspace.owner != principal and workspace.deleted_at is None]
        return [SharedWorkspace(workspace, mine[workspace.id]) for workspace in _newest_first(theirs)[:limit]]

    def _is_used(self, lineage_id: str) -> bool:
        users = [*self._workspaces.values(), *self._revisions.values(), *self._snapshots.values()]
        return any(user.lineage == lineage_id for user in users)

    def _named(self, owner: str, name: str) -> Workspace | None:
        kept = (workspace for workspace in self._workspaces.values() if workspace.deleted_at is None)
        return next((workspace for workspace in kept if (workspace.owner, workspace.name) == (owner, name)), None)

    def _numbered(self, workspace_id: str, number: int) -> Revision | None:
        mine = (revision for revision in self._revisions.values() if revision.workspace == workspace_id)
        return next((revision for revision in mine if revision.number == number), None)

    def _check_version(self, workspace: Workspace) -> None:
        stored = self._workspaces.get(workspace.id)
        if stored is None:
            raise NotFound(f"workspace {workspace.id} does not exist")
        if stored.version != workspace.version:
            raise StaleVersion()

    def _check_name(self, workspace: Workspace) -> None:
        named = self._named(workspace.owner, workspace.name)
        if workspace.deleted_at is None and named is not None and named.id != workspace.id:
            raise Conflict(f"there is a workspace {workspace.name!r} already")


def _newest_first(found: list[T]) -> list[T]:
    return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)
