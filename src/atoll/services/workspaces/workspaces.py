"""Workspaces: the service that every surface calls: make, look at, change and delete; its parts do the rest.

Every method takes the Principal first and raises Forbidden without the scope or the permission it names, and NotFound
for a workspace that is unknown, deleted or somebody else's: the same message for all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, StaleVersion
from atoll.domain.ids import new_id, new_workspace_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.workspace import Permission, Quota, Reason, Revision, Workspace
from atoll.services.identity.group_names import group_meant
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.adding import taken
from atoll.services.workspaces.evicting import Evicting
from atoll.services.workspaces.executing import Executing
from atoll.services.workspaces.parts import Parts
from atoll.services.workspaces.quotas import changed_quota, new_quota
from atoll.services.workspaces.single_files import SingleFiles
from atoll.services.workspaces.storage.allowance import Use
from atoll.services.workspaces.views import Changes, Damage, Report, RevisionView, WorkspaceView

LIST_MAX = 10_000
SWAPS_MAX = 8


class Workspaces:
    """Use cases of workspaces. app.py: `join(sandboxes)`, `await start()` before the sandboxes start, `await close()`
    after they have closed. The parts below act inside a workspace; `mounts` is for the sandbox services."""

    executing: Executing  # `join` sets these two
    _evicting: Evicting

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.access = parts.access
        self.archives = parts.archives
        self.history = parts.history
        self.revising = parts.revising
        self.restoring = parts.restoring
        self.forks = parts.forks
        self.merging = parts.merging
        self.snapshots = parts.snapshots
        self.sharing = parts.sharing
        self.sync = parts.sync
        self.mounts = parts.mounts
        self.files = SingleFiles(parts.access, parts.history, parts.manifests, parts.revising, parts.sync)

    def join(self, sandboxes: Sandboxes) -> None:
        """The sandboxes that workspaces are mounted in, before `start`. They need `mounts` first."""
        parts = self._parts
        self.executing = Executing(parts.records, parts.access, parts.sandbox_configs, parts.mounted, sandboxes)
        self._evicting = parts.sharing.evicting = Evicting(parts.records, parts.access, parts.mounted, sandboxes)

    async def left(self, principal_id: str) -> None:
        """Somebody is less, or nothing, in a group: their sandboxes with more of its workspaces than they may end."""
        await self._evicting.left(principal_id)

    async def check_key(self) -> None:
        """Before anybody is served: Corrupt when the vault has another master key than these workspaces need."""
        await self._parts.keys.check()

    async def check_disks(self) -> None:
        """StorageFull where they are so full that nothing new may be stored."""
        await self._parts.chunks.allowance.check_disks()

    async def start(self) -> None:
        """Learn what is mounted where; then reconcile, take daily revisions, prune and collect, until `close`."""
        await self._parts.upkeep.start()
        for copies in (self._parts.files, self._parts.folders):
            if copies is not None:
                copies.start()

    async def close(self) -> None:
        """Stop; what is under way gets a moment. A second call does nothing."""
        await self._parts.upkeep.close()
        for copies in (self._parts.files, self._parts.folders):
            if copies is not None:
                await copies.close()
        await self._parts.background.close(self._parts.limits.close_s)
        await self._parts.chunks.close()

    async def create(
        self,
        principal: Principal,
        name: str,
        *,
        description: str | None = None,
        tags: tuple[str, ...] = (),
        quota_bytes: int | None = None,
        quota_inodes: int | None = None,
        automatic: bool = True,
        sandbox_config: dict[str, Any] | None = None,
        group: str | None = None,
    ) -> WorkspaceView:
        """Make an empty one, one's own or a group's. Needs `write`. InvalidInput names the field; NotFound for the
        group; Conflict when its owner has that name; QuotaExceeded for too many, or for too many bytes as of
        `Allowance.check`."""
        parts, limits = self._parts, self._parts.limits
        owner = principal.owning(Scope.WRITE, await group_meant(parts.records, principal, group))
        now = parts.access.clock()
        workspace = Workspace(
            id=new_workspace_id(),
            owner=owner,
            name=name,
            lineage=new_id("lin"),
            head=new_id("rev"),
            created_at=now,
            updated_at=now,
            description=description or None,
            tags=tuple(dict.fromkeys(tags)),
            quota=new_quota(limits.quota, quota_bytes, quota_inodes),
            automatic=automatic,
        )
        await parts.adding.check(workspace)
        await parts.chunks.allowance.check_new(workspace.owner)
        # The empty tree is stored under the new key before a workspace names it: a cut leaves a lineage to collect.
        await parts.records.add_lineage(await parts.keys.new(workspace.lineage, workspace.owner))
        if sandbox_config is not None:
            sealed = await parts.sandbox_configs.seal(workspace, sandbox_config)
            workspace = replace(workspace, sandbox_config=sealed)
        crash.point("workspaces.create.keyed")
        root = Entry(b"", EntryKind.DIRECTORY, 0o755, int(now.timestamp()) * 10**9)
        stored = await parts.revising.store(workspace.lineage, [root])
        crash.point("workspaces.create.stored")
        revision = Revision(
            id=workspace.head,
            workspace=workspace.id,
            number=1,
            lineage=workspace.lineage,
            tree=stored.tree,
            parent=None,
            reason=Reason.CREATED,
            actor=principal.id,
            created_at=now,
            entries=stored.entries,
            bytes=stored.bytes,
            stored_bytes=stored.stored_bytes,
        )
        await parts.adding.add(principal, workspace, revision, "workspace.created")
        crash.point("workspaces.create.recorded")
        made = await parts.access.find(principal, workspace.id, Permission.READ, scope=Scope.WRITE)
        return await parts.viewing.workspace(*made)

    async def get(self, principal: Principal, ref: str) -> WorkspaceView:
        """Needs `read`."""
        found = await self._parts.access.find(principal, ref, Permission.READ)
        return await self._parts.viewing.workspace(*found)

    async def list(
        self,
        principal: Principal,
        *,
        name: str | None = None,
        tag: str | None = None,
        shared: bool = False,
        limit: int = 1000,
    ) -> list[WorkspaceView]:
        """One's own and one's groups', and with `shared` those of others too, newest first. Needs `read`."""
        principal.require(Scope.READ)
        limit = max(0, min(limit, LIST_MAX))
        found = await self._parts.access.list(principal, shared=shared)
        wanted = [one for one in found if (name is None or one[0].name == name) and (tag is None or tag in one[0].tags)]
        uses: dict[str, Use] = {}
        for workspace, permission in wanted[:limit]:
            if permission is None and workspace.owner not in uses:
                uses[workspace.owner] = await self._parts.chunks.allowance.use(workspace.owner)
        return [
            await self._parts.viewing.workspace(workspace, permission, None if permission else uses[workspace.owner])
            for workspace, permission in wanted[:limit]
        ]

    async def change(self, principal: Principal, ref: str, changes: Changes) -> WorkspaceView:
        """Needs the permission `admin`. Its quota holds for working trees that are made from now on.

        InvalidInput, Conflict for the name.
        """
        parts = self._parts
        found = await parts.access.find(principal, ref, Permission.ADMIN)
        workspace = found.workspace
        for _ in range(SWAPS_MAX):
            after = _changed(workspace, changes, parts.limits.quota)
            parts.adding.check_fields(after)
            if after == workspace:
                return await parts.viewing.workspace(workspace, found.permission)
            try:
                event = parts.access.event("workspace.changed", workspace, principal.id)
                stored = await parts.records.swap_workspace(replace(after, updated_at=parts.access.clock()), event)
                parts.access.changed(stored.id)
                return await parts.viewing.workspace(stored, found.permission)
            except StaleVersion:
                workspace = await parts.access.current(workspace.id)
            except Conflict:
                raise taken(after.name) from None
        raise StaleVersion()

    async def take(self, principal: Principal, ref: str, message: str | None = None) -> RevisionView:
        """A revision of the state now; the head itself when nothing changed. Needs `write`."""
        return await self._parts.viewing.revision(await self._parts.revising.ask(principal, ref, message))

    async def verify(self, principal: Principal, ref: str) -> Report:
        """Read every byte of its revisions and snapshots; damaged ones are marked, and told. Needs `write`."""
        found = await self._parts.access.find(principal, ref, Permission.WRITE)
        report = await self._parts.verifier.verify(found.workspace, principal.id)
        damages = [Damage(one.message, one.revision, one.snapshot, one.path) for one in report.corrupt]
        return Report(report.revisions, report.snapshots, report.chunks, report.bytes, damages)

    async def delete(self, principal: Principal, ref: str) -> None:
        """Only its owner may. Conflict while a sandbox has it mounted. Its files, snapshots and, with the last
        workspace of its lineage, the key that protects them are gone for good."""
        parts = self._parts
        found = await parts.access.find(principal, ref, None)
        async with parts.locks.hold(found.workspace.id):
            for _ in range(SWAPS_MAX):
                workspace = await parts.access.current(found.workspace.id)
                parts.mounted.check_free(workspace.id)
                now = parts.access.clock()
                gone = replace(
                    workspace,
                    deleted_at=now,
                    updated_at=now,
                    tree_id=None,
                    runtime=None,
                    sandbox_id=None,
                    sandbox_config=None,
                )
                event = parts.access.event("workspace.deleted", workspace, principal.id, name=workspace.name)
                try:
                    await parts.records.swap_workspace(gone, event)
                    break
                except StaleVersion:
                    continue
            else:
                raise StaleVersion()
            parts.access.changed(gone.id)
            parts.unrecorded.clear(gone.id)
            crash.point("workspaces.delete.recorded")
            if workspace.tree_id is not None:
                await parts.trees.remove(workspace.tree_id)
            await parts.old_trees.remove_all(workspace.id)
        crash.point("workspaces.delete.emptied")
        try:
            await parts.shredding.after(gone, principal.id)
        except AtollError as error:  # upkeep tries again: to whoever asked it is gone
            parts.shredding.put_off(gone, error)


def _changed(workspace: Workspace, changes: Changes, default: Quota) -> Workspace:
    return replace(
        workspace,
        name=workspace.name if changes.name is None else changes.name,
        description=workspace.description if changes.description is None else changes.description or None,
        tags=workspace.tags if changes.tags is None else tuple(dict.fromkeys(changes.tags)),
        quota=changed_quota(workspace.quota, default, changes.quota_bytes, changes.quota_inodes),
        automatic=workspace.automatic if changes.automatic is None else changes.automatic,
    )
