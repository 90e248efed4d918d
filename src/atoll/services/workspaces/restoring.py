"""Restoring: a workspace becomes what it was: all of it or one path; with live sandboxes on it, in one step for them.

A restore is a revision like any other, and what it would have lost is one before it: so it can be undone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, NotFound, StaleVersion
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, check_path, raw
from atoll.domain.workspace import Permission, Reason, Revision, Workspace
from atoll.records.base import Records
from atoll.runtimes.base import Capability, Runtime
from atoll.services.deadline import deadline
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.copying import Copying
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.mounted import Mounted, MountedAt
from atoll.services.workspaces.old_trees import OldTrees
from atoll.services.workspaces.quotas import check_quota, surely_fits
from atoll.services.workspaces.refs import Refs, Resolved
from atoll.services.workspaces.revising import Revising, Stored, Taken
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.trees.in_place import has_room
from atoll.services.workspaces.trees.splicing import splice
from atoll.services.workspaces.trees.working_trees import WorkingTrees
from atoll.services.workspaces.viewing import Viewing
from atoll.services.workspaces.views import Restored
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()


class Became(NamedTuple):
    """The head that a workspace has now, and the newest revision of what was there before."""

    head: Revision
    before: Revision


class Restoring:
    """Restores of workspaces and of single paths, and undo."""

    def __init__(
        self,
        records: Records,
        runtime: Runtime,
        access: WorkspaceAccess,
        refs: Refs,
        manifests: Manifests,
        copying: Copying,
        trees: WorkingTrees,
        old_trees: OldTrees,
        revising: Revising,
        viewing: Viewing,
        mounted: Mounted,
        locks: Locks,
        limits: WorkspaceLimits,
        metrics: Metrics,
    ) -> None:
        self._records = records
        self._runtime = runtime
        self._access = access
        self._refs = refs
        self._manifests = manifests
        self._copying = copying
        self._trees = trees
        self._old_trees = old_trees
        self._revising = revising
        self._viewing = viewing
        self._mounted = mounted
        self._locks = locks
        self._limits = limits
        self._metrics = metrics
        self.wanted: dict[str, int] = {}  # revisions that a restore under way reads: how many do

    async def restore(self, principal: Principal, ref: str, revision: str, path: str | None = None) -> Restored:
        """Make the workspace, or what is at `path`, what it was. Needs `write`. NotFound for the revision or the path
        in it, Corrupt when it is damaged. What is there now becomes a revision first.
        """
        found = await self._access.find(principal, ref, Permission.WRITE)
        wanted = (await self._refs.resolve(found.workspace, revision)).readable()
        self.wanted[wanted.revision.id] = self.wanted.get(wanted.revision.id, 0) + 1
        try:
            where = b"" if path is None else raw(path.strip("/"))
            async with self._locks.hold(found.workspace.id):
                workspace = await self._access.current(found.workspace.id)
                if where:
                    return await self._restore_path(workspace, wanted, where, principal.id)
                stored = await self._copying.into(workspace.lineage, wanted)
                message = f"r{wanted.revision.number}"
                became = await self.become(workspace, stored, Reason.RESTORE, principal.id, message)
                if wanted.snapshot is not None:
                    self._metrics.snapshot_restored()
                return await self._restored(became, stored.entries, stored.bytes)
        finally:
            self.wanted[wanted.revision.id] -= 1
            if not self.wanted[wanted.revision.id]:
                del self.wanted[wanted.revision.id]

    async def undo(self, principal: Principal, ref: str) -> Restored:
        """The state before the newest change, as a new revision; twice undoes the undo. Needs `write`.

        Conflict when there is nothing before it.
        """
        found = await self._access.find(principal, ref, Permission.WRITE)
        async with self._locks.hold(found.workspace.id):
            workspace = await self._access.current(found.workspace.id)
            workspace, head = await self._revising.take_held(workspace, Reason.BEFORE_RESTORE, principal.id)
            before = None if head.parent is None else await self._records.get_revision(head.parent)
            if before is None or before.workspace != workspace.id:
                raise Conflict("there is nothing to undo: no earlier revision is kept")
            resolved = Resolved(before, before.lineage, before.tree).readable()
            stored = Stored(resolved.tree, before.entries, before.bytes, 0)
            became = await self.become(workspace, stored, Reason.UNDO, principal.id, f"r{before.number}")
            return await self._restored(became, stored.entries, stored.bytes)

    async def _restored(self, became: Became, entries: int, size: int) -> Restored:
        if became.head == became.before:
            entries = size = 0
        head, before = await self._viewing.revisions([*became], became.head.workspace)
        return Restored(head, entries, size, before)

    # all of it

    @property
    def _can_swap(self) -> bool:
        return Capability.SWAP_TREES in self._runtime.capabilities

    def _is_live(self, workspace: Workspace) -> bool:
        return workspace.tree_id is not None and bool(self._mounted.of_workspace(workspace.id))

    async def become(
        self, workspace: Workspace, stored: Stored, reason: Reason, actor: str, message: str | None = None
    ) -> Became:
        """A revision with that tree is the head, and every live sandbox has it. The caller has the lock.

        Conflict when programs are at work in too many old trees of it."""
        if self._can_swap and self._is_live(workspace):
            workspace = await self._old_trees.make_room(workspace)
        for _ in range(self._limits.take_tries):
            with suppress(StaleVersion):
                return await self._try_become(workspace, stored, reason, actor, message)
            workspace = await self._access.current(workspace.id)
        raise StaleVersion()

    async def _try_become(
        self,
        workspace: Workspace,
        stored: Stored,
        reason: Reason,
        actor: str,
        message: str | None,
        *,
        based: Revision | None = None,
        merged: str | None = None,
    ) -> Became:
        """StaleVersion when another process was faster, or the head is not the one that it is `based` on."""
        live = self._is_live(workspace)
        if live and not self._can_swap:
            return await self._become_in_place(workspace, stored, reason, actor, message)
        head = based or await self._trees.head(workspace)
        await self._check_quota(workspace, head.tree, stored)
        # The long part first: between the last look at the old tree and the new one's mounting there is but a moment.
        new_tree, recording = None, False
        if live:
            new_tree = await self._trees.hydrate(workspace.lineage, stored.tree, workspace.quota)
        try:
            crash.point("workspaces.restore.hydrated")
            taken = await self._revising.take_held(workspace, Reason.BEFORE_RESTORE, actor)
            if based is not None and taken.head.id != based.id:
                raise StaleVersion()
            if taken.head.tree == stored.tree:  # that is what it is
                if new_tree is not None:
                    await self._trees.remove(new_tree)
                return Became(taken.head, taken.head)
            before, workspace, old_tree = taken.head, taken.workspace, taken.workspace.tree_id
            if new_tree is not None:
                await self._trees.mark(new_tree, workspace)
            crash.point("workspaces.restore.kept")
            becoming = replace(workspace, tree_id=new_tree, runtime=None if new_tree is None else self._runtime.name)
            recording = True
            taken = await self._revising.add(becoming, taken.head, stored, reason, actor, message, merged=merged)
        except BaseException as error:
            # A record that could not be written may be there all the same: then upkeep decides about the tree.
            if new_tree is not None and (not recording or isinstance(error, StaleVersion)):
                await self._trees.remove(new_tree)
            raise
        finally:
            if new_tree is not None:
                self._trees.fresh.discard(new_tree)
        crash.point("workspaces.restore.recorded")
        kept = None if old_tree is None else await self._retire(taken.workspace, old_tree)
        if kept is None:
            return Became(taken.head, before)
        return Became(await self._trees.head(await self._access.current(workspace.id)), kept)

    async def _check_quota(self, workspace: Workspace, now: str, stored: Stored) -> None:
        """QuotaExceeded when it does not go from the tree `now` to that one."""
        if now != stored.tree and not surely_fits(workspace.quota, stored.entries, stored.bytes):
            after = await self._manifests.load(workspace.lineage, stored.tree)
            await check_quota(workspace.quota, lambda: self._manifests.load(workspace.lineage, now), after)

    async def _become_in_place(
        self, workspace: Workspace, stored: Stored, reason: Reason, actor: str, message: str | None
    ) -> Became:
        """Where mounts cannot be swapped: the live tree is changed path by path."""
        taken = await self._revising.take_held(workspace, Reason.BEFORE_RESTORE, actor)
        after = await self._manifests.load(workspace.lineage, stored.tree)
        return Became(await self.become_entries(taken, after, stored, reason, actor, message), taken.head)

    async def become_entries(
        self,
        taken: Taken,
        after: list[Entry],
        stored: Stored,
        reason: Reason,
        actor: str,
        message: str | None = None,
        *,
        merged: str | None = None,
    ) -> Revision:
        """The head is those entries, whose chunks are stored, from now on; the working tree, if there is one, follows.

        StaleVersion when another process was faster: nothing is changed then. Conflict as of `become`.
        """
        workspace, head = taken
        if stored.tree == head.tree:
            return head
        await self._check_quota(workspace, head.tree, stored)
        workspace = await self._trees.recall(workspace)
        before: list[Entry] = []
        if workspace.tree_id is not None:
            before = await self._manifests.load(workspace.lineage, head.tree)
            if not await self._has_room(workspace, before, after):
                if self._is_live(workspace):
                    workspace = await self._old_trees.make_room(workspace)
                return (
                    await self._try_become(workspace, stored, reason, actor, message, based=head, merged=merged)
                ).head
            await self._trees.mark(workspace.tree_id, workspace)
        taken = await self._revising.add(workspace, head, stored, reason, actor, message, merged=merged)
        crash.point("workspaces.commit.recorded")
        if workspace.tree_id is not None:
            if not await self._revising.followed(taken.workspace, before, after, stored.tree):
                self._revising.touched(workspace.id)
            elif not self._mounted.writable(workspace.id):
                await self._trees.unmark(workspace.tree_id)
        return taken.head

    async def _has_room(self, workspace: Workspace, before: list[Entry], after: list[Entry]) -> bool:
        """Whether its working tree can become that where it is; True where there is no other way."""
        if self._is_live(workspace) and not self._can_swap:
            return True
        keeper = await self._trees.keeper(workspace)
        async with deadline(self._limits.call_s, "measuring the working tree"):
            free = await keeper.free()
        return await asyncio.to_thread(has_room, free, before, after)

    async def _retire(self, workspace: Workspace, old_tree: str) -> Revision | None:
        """Bring every sandbox from the old tree to the new one. The revision of what was written meanwhile, if any."""
        for one in self._mounted.of_workspace(workspace.id):
            if one.mount.tree_id == old_tree and one.made:
                await self._swap(workspace, one)
        crash.point("workspaces.restore.swapped")
        return await self._old_trees.leave(workspace, old_tree, late=False)

    async def _swap(self, workspace: Workspace, one: MountedAt) -> None:
        assert workspace.tree_id is not None
        try:
            async with deadline(self._limits.call_s, "mounting the restored files"):
                await self._runtime.swap_tree(
                    one.sandbox, one.mount.path, workspace.tree_id, read_only=one.mount.read_only
                )
        except NotFound:
            return  # the sandbox has ended
        except AtollError as error:  # the reconciler tries again
            _log.warning("workspace.not_swapped", sandbox_id=one.sandbox, error=error.message)
            return
        self._mounted.swapped(one, workspace.tree_id)

    async def catch_up(self, one: MountedAt) -> None:
        """Bring one mount of an old tree to the present one."""
        async with self._locks.hold(one.mount.workspace):
            try:
                workspace = await self._access.current(one.mount.workspace)
            except NotFound:
                return
            old_tree = one.mount.tree_id
            if workspace.tree_id == old_tree or not self._can_swap:
                return
            workspace = await self._trees.open(workspace)
            assert workspace.tree_id is not None
            if not one.mount.read_only:
                await self._trees.mark(workspace.tree_id, workspace)
            await self._swap(workspace, one)
            await self._old_trees.leave(workspace, old_tree)

    # one path

    async def _restore_path(self, workspace: Workspace, wanted: Resolved, path: bytes, actor: str) -> Restored:
        check_path(path)
        for _ in range(self._limits.take_tries):
            taken = await self._revising.take_held(workspace, Reason.BEFORE_RESTORE, actor)
            now = await self._manifests.load(taken.workspace.lineage, taken.head.tree)
            then = await self._manifests.load(wanted.lineage, wanted.tree)
            if not any(entry.path == path for entry in then):
                raise NotFound(f"revision {wanted.revision.number} has no such path")
            entries = splice(now, then, path)
            stored = await self._copying.entries(workspace.lineage, wanted.lineage, entries)
            message = f"{path.decode(errors='replace')} of r{wanted.revision.number}"
            with suppress(StaleVersion):
                head = await self.become_entries(taken, entries, stored, Reason.RESTORE, actor, message)
                put = [entry for entry in entries if entry.path == path or entry.path.startswith(path + b"/")]
                return await self._restored(Became(head, taken.head), len(put), sum(entry.size for entry in put))
            workspace = await self._access.current(workspace.id)
        raise StaleVersion()
