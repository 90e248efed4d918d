"""Snapshots: revisions that somebody keeps, by a name or by their moment; the oldest nameless ones go by themselves."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.domain.ids import new_id
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Reason, Revision, Snapshot, Workspace
from atoll.records.base import Records
from atoll.services.locks import Locks
from atoll.services.workspaces.access import REF_CHARS_SHOWN, WorkspaceAccess
from atoll.services.workspaces.archives.snapshot_files import SnapshotFiles
from atoll.services.workspaces.copying import Copying
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.refs import Refs, Resolved, names_a_revision
from atoll.services.workspaces.revising import Revising
from atoll.services.workspaces.shredding import Shredding
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()

LISTED_MAX = 10_000
SAME_SECOND_MAX = 1_000


class Snapshots:
    """Makes, lists, deletes and prunes. `in_use` are revisions that a restore under way reads."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        refs: Refs,
        keys: LineageKeys,
        copying: Copying,
        revising: Revising,
        shredding: Shredding,
        locks: Locks,
        in_use: Collection[str],
        files: SnapshotFiles | None,
        limits: WorkspaceLimits,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._access = access
        self._refs = refs
        self._keys = keys
        self._copying = copying
        self._revising = revising
        self._shredding = shredding
        self._locks = locks
        self._in_use = in_use
        self._files = files
        self._limits = limits
        self._metrics = metrics

    async def create(
        self,
        principal: Principal,
        ref: str,
        *,
        name: str | None = None,
        own_key: bool = False,
        keep: bool = False,
        metadata: str = "",
    ) -> Snapshot:
        """Keep the state now, live sandboxes or not. Needs `write`. Conflict when the workspace has one of that name.

        With `own_key` its bytes are stored once more, under a key of its own: deleting it destroys them for good.
        """
        found = await self._access.find(principal, ref, Permission.WRITE)
        if name is not None:
            self._check_name(name)
        async with self._locks.hold(found.workspace.id):
            workspace = await self._access.current(found.workspace.id)
            if name is not None and await self._refs.snapshot(workspace, name) is not None:
                raise Conflict(f"the workspace has a snapshot named {name!r} already")
            workspace, head = await self._revising.take_held(workspace, Reason.ASKED, principal.id)
            crash.point("workspaces.snapshot.taken")
            lineage = workspace.lineage
            if own_key:
                await self._copying.check_allowance(workspace.owner)
                lineage = new_id("lin")
                await self._records.add_lineage(await self._keys.new(lineage, workspace.owner))
                await self._copying.into(lineage, Resolved(head, head.lineage, head.tree))
                crash.point("workspaces.snapshot.copied")
            snapshot = await self._add(workspace, head, lineage, name, keep, principal.id, metadata)
            crash.point("workspaces.snapshot.recorded")
            self._metrics.snapshot_created(snapshot.bytes)
            try:
                await self._prune_held(workspace)
            except AtollError as error:  # upkeep prunes too
                _log.warning("workspace.unpruned", workspace_id=workspace.id, error=error.message)
        if self._files is not None:
            self._files.made(snapshot)
        return snapshot

    async def list(self, principal: Principal, ref: str) -> list[Snapshot]:
        """Newest first. Needs the permission `read`."""
        found = await self._access.find(principal, ref, Permission.READ)
        return await self._records.list_snapshots(workspace=found.workspace.id, limit=LISTED_MAX)

    async def get(self, principal: Principal, ref: str, snapshot: str) -> Snapshot:
        """By its id or name. Needs the permission `read`. NotFound."""
        found = await self._access.find(principal, ref, Permission.READ)
        one = await self._refs.snapshot(found.workspace, snapshot)
        if one is None:
            raise NotFound(f"snapshot not found: {snapshot[:REF_CHARS_SHOWN]!r}")
        return one

    async def delete(self, principal: Principal, ref: str, snapshot: str) -> None:
        """By its id or name. Needs `write`. NotFound. Its own key, if it has one, is destroyed."""
        found = await self._access.find(principal, ref, Permission.WRITE)
        async with self._locks.hold(found.workspace.id):
            one = await self._refs.snapshot(found.workspace, snapshot)
            if one is None or not await self._shredding.delete(found.workspace, one, principal.id):
                raise NotFound(f"snapshot not found: {snapshot[:REF_CHARS_SHOWN]!r}")

    async def prune(self, workspace_id: str) -> int:
        """Delete the oldest nameless ones beyond those that are kept; never one to keep or in use. How many went."""
        async with self._locks.hold(workspace_id):
            return await self._prune_held(await self._access.current(workspace_id))

    async def _prune_held(self, workspace: Workspace) -> int:
        listed = await self._records.list_snapshots(workspace=workspace.id, limit=LISTED_MAX)
        nameless = [one for one in listed if one.name is None and not one.kept]
        gone = 0
        for snapshot in nameless[self._limits.snapshots_kept :]:
            if snapshot.revision in self._in_use:
                continue
            crash.point("workspaces.prune.chosen")
            gone += await self._shredding.delete(workspace, snapshot, "system")
        return gone

    async def _add(
        self,
        workspace: Workspace,
        head: Revision,
        lineage: str,
        name: str | None,
        keep: bool,
        actor: str,
        metadata: str = "",
    ) -> Snapshot:
        now = self._access.clock()
        stem = f"snap_{now.astimezone(UTC):%Y_%m_%d_%H%M%S}"
        for number in range(1, SAME_SECOND_MAX):
            snapshot = Snapshot(
                id=stem if number == 1 else f"{stem}_{number}",
                workspace=workspace.id,
                owner=workspace.owner,
                revision=head.id,
                lineage=lineage,
                tree=head.tree,
                created_at=now,
                name=name,
                entries=head.entries,
                bytes=head.bytes,
                kept=keep,
                metadata=metadata,
            )
            event = self._access.event("snapshot.created", workspace, actor, snapshot=snapshot.id, name=name)
            try:
                await self._records.add_snapshot(snapshot, event)
                return snapshot
            except Conflict:  # the id, within this second; or the name, by another process
                if name is not None and await self._refs.snapshot(workspace, name) is not None:
                    raise Conflict(f"the workspace has a snapshot named {name!r} already") from None
        raise Conflict("too many snapshots within one second")

    def _check_name(self, name: str) -> None:
        most = self._limits.name_chars_max
        if not name.strip() or len(name) > most or not name.isprintable() or names_a_revision(name):
            raise InvalidInput(
                f"name must be 1 to {most} printable characters and not mean a revision by itself", field="name"
            )
