"""The workspaces' part of MemoryRecords, in dictionaries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.workspace import (
    Lineage,
    Pack,
    Revision,
    RevisionState,
    Share,
    Snapshot,
    StoredChunk,
    Workspace,
)
from atoll.records.workspaces import SharedWorkspace, WorkspaceRecords

T = TypeVar("T", Workspace, Snapshot)


class MemoryWorkspaceRecords(WorkspaceRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        self._lineages: dict[str, Lineage] = {}
        self._workspaces: dict[str, Workspace] = {}
        self._revisions: dict[str, Revision] = {}
        self._snapshots: dict[tuple[str, str], Snapshot] = {}
        self._shares: dict[tuple[str, str], Share] = {}
        self._packs: dict[str, Pack] = {}
        self._chunks: dict[str, dict[bytes, StoredChunk]] = {}  # of each lineage

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the records are down."""

    @abstractmethod
    def _log(self, event: Event | None) -> None:
        """Keep the event."""

    # lineages

    async def get_lineage(self, lineage_id: str) -> Lineage | None:
        self._check()
        return self._lineages.get(lineage_id)

    async def list_lineages(self) -> list[Lineage]:
        self._check()
        return sorted(self._lineages.values(), key=lambda lineage: (lineage.created_at, lineage.id))

    async def add_lineage(self, lineage: Lineage) -> None:
        self._check()
        if lineage.id in self._lineages:
            raise Conflict(f"lineage {lineage.id} exists already")
        self._lineages[lineage.id] = lineage

    async def swap_lineage_key(self, lineage_id: str, old: bytes, new: bytes | None, vault: str, event: Event) -> None:
        self._check()
        stored = self._lineages.get(lineage_id)
        if stored is None:
            raise NotFound(f"lineage {lineage_id} does not exist")
        if stored.key != old:
            raise StaleVersion()
        self._lineages[lineage_id] = replace(stored, key=new, vault=vault)
        self._log(event)

    async def delete_lineage(self, lineage_id: str) -> None:
        self._check()
        users = [*self._workspaces.values(), *self._revisions.values(), *self._snapshots.values()]
        if any(user.lineage == lineage_id for user in users):
            raise Conflict(f"lineage {lineage_id} is in use")
        self._forget_packs({pack.id for pack in self._packs.values() if pack.lineage == lineage_id})
        self._lineages.pop(lineage_id, None)

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
        self, *, owner: str | None = None, deleted: bool | None = False, with_tree: bool = False, limit: int = 1000
    ) -> list[Workspace]:
        self._check()
        found = [
            workspace
            for workspace in self._workspaces.values()
            if (owner is None or workspace.owner == owner)
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

    # packs and chunks

    async def add_pack(self, pack: Pack, chunks: Sequence[StoredChunk]) -> None:
        self._check()
        self._hold_lineage(pack.lineage)
        if pack.id in self._packs:
            raise Conflict(f"pack {pack.id} exists already")
        self._packs[pack.id] = pack
        for chunk in chunks:
            self._of(pack.lineage).setdefault(chunk.id, replace(chunk, pack=pack.id))

    async def find_chunks(self, lineage: str, ids: Collection[bytes]) -> dict[bytes, StoredChunk]:
        self._check()
        mine = self._of(lineage)
        return {chunk_id: mine[chunk_id] for chunk_id in ids if chunk_id in mine}

    async def list_chunks(self, lineage: str, *, after: bytes = b"", limit: int = 10_000) -> list[StoredChunk]:
        self._check()
        mine = self._of(lineage)
        return [mine[chunk_id] for chunk_id in sorted(mine) if chunk_id > after][:limit]

    async def list_packs(self, lineage: str | None = None, *, after: str = "", limit: int = 10_000) -> list[Pack]:
        self._check()
        found = [self._packs[pack_id] for pack_id in sorted(self._packs) if pack_id > after]
        return [pack for pack in found if lineage is None or pack.lineage == lineage][:limit]

    async def move_chunks(self, pack: Pack, chunks: Sequence[StoredChunk], removed: Collection[str]) -> None:
        self._check()
        self._hold_lineage(pack.lineage)
        self._packs.setdefault(pack.id, pack)
        self._of(pack.lineage).update({chunk.id: replace(chunk, pack=pack.id) for chunk in chunks})
        self._forget_packs(removed)

    async def refresh_packs(self, pack_ids: Collection[str], at: datetime) -> None:
        self._check()
        for pack_id in self._packs.keys() & set(pack_ids):
            pack = self._packs[pack_id]
            self._packs[pack_id] = replace(pack, created_at=max(pack.created_at, at))

    async def delete_chunks(self, lineage: str, ids: Collection[bytes], stored_before: datetime) -> int:
        self._check()
        mine = self._of(lineage)
        old = {pack.id for pack in self._packs.values() if pack.created_at < stored_before}
        going = [chunk_id for chunk_id in set(ids) if chunk_id in mine and mine[chunk_id].pack in old]
        for chunk_id in going:
            del mine[chunk_id]
        return len(going)

    async def delete_packs(self, pack_ids: Collection[str]) -> int:
        self._check()
        return self._forget_packs(pack_ids)

    def _of(self, lineage: str) -> dict[bytes, StoredChunk]:
        return self._chunks.setdefault(lineage, {})

    def _forget_packs(self, pack_ids: Collection[str]) -> int:
        going = self._packs.keys() & set(pack_ids)
        for mine in self._chunks.values():
            for chunk_id in [chunk.id for chunk in mine.values() if chunk.pack in going]:
                del mine[chunk_id]
        for pack_id in going:
            del self._packs[pack_id]
        return len(going)

    def _hold_lineage(self, lineage_id: str) -> None:
        stored = self._lineages.get(lineage_id)
        if stored is None or stored.key is None:
            raise NotFound(f"lineage {lineage_id} does not exist, or was shredded")

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
