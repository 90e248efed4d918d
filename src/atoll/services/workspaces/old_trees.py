"""Old trees: working trees that a restore has taken from under programs, which go on writing where they are.

Such a tree stays until the last of them has let go of it, and what they wrote is a revision beneath the head. Its mark
says whose it is: so the next server finds it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, NotFound, StaleVersion
from atoll.domain.workspace import Reason, Revision, Workspace
from atoll.records.base import Records
from atoll.services.background import Background
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.mounted import Mounted
from atoll.services.workspaces.revising import Revising, Stored, Taken
from atoll.services.workspaces.trees.stamps import TreeState
from atoll.services.workspaces.trees.working_trees import WorkingTrees

_log = structlog.get_logger()

WRITTEN_LATE = "what programs wrote in the files from before a restore"
PAUSES = (0.5, 1.0, 1.5)  # before each look after something has ended, as parts of the delay after a process
SYSTEM = "system"
NEWEST = 4  # revisions among which one may have what was read already


class OldTrees:
    """Trees that no record names any more, by the workspace that had them."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        trees: WorkingTrees,
        revising: Revising,
        mounted: Mounted,
        locks: Locks,
        background: Background,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._access = access
        self._trees = trees
        self._revising = revising
        self._mounted = mounted
        self._locks = locks
        self._background = background
        self._limits = limits
        self._owners: dict[str, str] = {}  # tree -> workspace
        self._read_at: dict[str, float] = {}  # when each was read last, on the monotonic clock
        self._faults: dict[str, str] = {}  # codes of the errors of those that could not be read
        self._looks: dict[str, int] = {}  # workspaces that are looked at soon, and how often they were

    def of(self, workspace_id: str) -> list[str]:
        return [tree_id for tree_id, owner in self._owners.items() if owner == workspace_id]

    def all(self) -> set[str]:
        return set(self._owners)

    def workspaces(self) -> set[str]:
        """Those that have any."""
        return set(self._owners.values())

    async def adopt(self, orphans: Iterable[str]) -> None:
        """Those of an earlier server among the trees that no record names."""
        for tree_id in orphans:
            if tree_id not in self._owners:
                owner = await self._trees.marked_by(tree_id)
                if owner is not None:
                    self._owners[tree_id] = owner

    async def leave(self, workspace: Workspace, tree_id: str, *, late: bool = True) -> Revision | None:
        """Remove a tree that is not the workspace's any more, or keep it while programs are at work in it. What was
        written in it since it was looked at last is a revision then: this one; None when that is nothing.

        The caller has the lock. `late`: others have seen the head that comes on top of that revision once more.
        """
        if self._mounted.has_tree(tree_id):
            return None  # a swap has failed: upkeep tries again, and comes here
        in_use, kept = await self._trees.in_use(tree_id), None
        if not in_use or self._is_due(tree_id):
            try:
                kept = await self._keep(workspace, tree_id, late=late)
            except NotFound:  # it has gone already
                self._forget(tree_id)
                return None
            except AtollError as error:
                await self._tell(workspace, tree_id, error)
                in_use = True
        if not in_use and await self._trees.remove(tree_id):
            self._forget(tree_id)
        else:
            await self._trees.mark(tree_id, workspace)
            self._owners[tree_id] = workspace.id
        return kept

    async def make_room(self, workspace: Workspace) -> Workspace:
        """Before a restore that may leave one more; the workspace as it is then. The caller has the lock.

        Conflict when as many as one may have are in use."""
        if len(self.of(workspace.id)) < self._limits.old_trees_max:
            return workspace
        workspace = await self._look_at(workspace)
        there = len(self.of(workspace.id))
        if there < self._limits.old_trees_max:
            return workspace
        sandboxes = ", ".join(sorted({one.sandbox for one in self._mounted.of_workspace(workspace.id)}))
        raise Conflict(
            f"programs in {sandboxes} still work in the files from before {there} earlier restores, in files that they "
            "have open or in their current folder: end those programs or the sandbox first"
        )

    async def look_again(self, workspace_id: str) -> None:
        """Those that are free by now go."""
        async with self._locks.hold(workspace_id):
            try:
                workspace = await self._access.current(workspace_id)
            except NotFound:
                await self.remove_all(workspace_id)
                return
            await self._look_at(workspace)

    def look_soon(self, workspace_id: str) -> None:
        """A process or a sandbox has ended: perhaps it was the last in a tree. The kernel takes a moment to let go."""
        if not self.of(workspace_id):
            return
        under_way = workspace_id in self._looks
        self._looks[workspace_id] = 0
        if not under_way:
            self._background.spawn(self._look_soon(workspace_id), f"old trees of {workspace_id}")

    async def remove_all(self, workspace_id: str) -> None:
        """Its workspace is deleted: nobody wants what is written there. The caller has the lock."""
        for tree_id in self.of(workspace_id):
            await self._trees.remove(tree_id)
            self._forget(tree_id)

    # the parts

    async def _look_soon(self, workspace_id: str) -> None:
        try:
            while self.of(workspace_id) and self._looks[workspace_id] < len(PAUSES):
                pause_s = self._limits.touched_delay_s * PAUSES[self._looks[workspace_id]]
                self._looks[workspace_id] += 1
                await asyncio.sleep(pause_s)
                await self.look_again(workspace_id)
        finally:
            del self._looks[workspace_id]

    async def _look_at(self, workspace: Workspace) -> Workspace:
        for tree_id in self.of(workspace.id):
            if workspace.tree_id == tree_id:
                self._forget(tree_id)
            else:
                await self.leave(workspace, tree_id)
            workspace = await self._access.current(workspace.id)
        return workspace

    def _is_due(self, tree_id: str) -> bool:
        """Of programs that never let go as much is kept as of those in a tree that is mounted."""
        read_at = self._read_at.get(tree_id)
        return read_at is None or time.monotonic() - read_at >= self._limits.daily_every_s

    def _forget(self, tree_id: str) -> None:
        self._owners.pop(tree_id, None)
        self._read_at.pop(tree_id, None)
        self._faults.pop(tree_id, None)

    async def _tell(self, workspace: Workspace, tree_id: str, error: AtollError) -> None:
        """What is in it stays there, until it can be read. Told once, until something of another kind is wrong."""
        if self._faults.get(tree_id) == error.code:
            return
        self._faults[tree_id] = error.code
        _log.warning("workspace.old_tree_unread", tree_id=tree_id, error=error.message)
        event = self._access.event(
            "workspace.old_tree_unread", workspace, outcome="failed", tree=tree_id, message=error.message
        )
        with suppress(AtollError):
            await self._records.swap_workspace(workspace, event)

    async def _keep(self, workspace: Workspace, tree_id: str, *, late: bool) -> Revision | None:
        """What was written in it is a revision. NotFound when it is gone."""
        state, head = await self._trees.state(tree_id), await self._trees.head(workspace)
        reading, _, left = await self._revising.read(tree_id, workspace.lineage, state, head.tree)
        kept = None
        if state is None or left.tree != state.tree:
            kept = await self._keep_beneath(workspace, head, left, late=late)
            await self._trees.save(tree_id, TreeState(left.tree, reading.known, reading.scanned))
        self._read_at[tree_id] = time.monotonic()
        return kept

    async def _keep_beneath(self, workspace: Workspace, head: Revision, left: Stored, *, late: bool) -> Revision | None:
        """Two revisions: what was left behind, and what is there now once more."""
        newest = await self._records.list_revisions(workspace=workspace.id, limit=NEWEST)
        if any(one.tree == left.tree for one in newest):
            await self._finish(workspace, head)
            return None
        tree_id = workspace.tree_id
        state = None if tree_id is None else await self._trees.state(tree_id)
        if tree_id is not None:  # cut short between the two, the next look makes the second
            await self._trees.mark(tree_id, workspace)
            await self._trees.save(tree_id, TreeState(left.tree, {}))
        taken = await self._add(workspace, head, left, Reason.BEFORE_RESTORE, WRITTEN_LATE)
        crash.point("workspaces.restore.left")
        # Whoever undoes the change that they see means what was before that, not what a program wrote elsewhere since.
        await self._once_more(taken, head, head.parent if late else None, state)
        return taken.head

    async def _finish(self, workspace: Workspace, head: Revision) -> None:
        """The second revision, where an earlier server was cut short between the two."""
        if head.message == WRITTEN_LATE and head.actor == SYSTEM and head.parent is not None:
            before = await self._records.get_revision(head.parent)
            if before is not None:
                await self._once_more(Taken(workspace, head), before, before.parent, TreeState(before.tree, {}))

    async def _once_more(self, taken: Taken, before: Revision, parent: str | None, state: TreeState | None) -> None:
        """`before` comes on top of the head, as what the working tree follows; `state` is that tree's."""
        now = Stored(before.tree, before.entries, before.bytes, 0)
        workspace, _ = await self._add(*taken, now, Reason.RESTORE, f"r{before.number}", parent)
        if workspace.tree_id is not None and state is not None:
            await self._trees.save(workspace.tree_id, state)

    async def _add(
        self,
        workspace: Workspace,
        head: Revision,
        stored: Stored,
        reason: Reason,
        message: str,
        parent: str | None = None,
    ) -> Taken:
        """StaleVersion only when the head has changed."""
        for _ in range(self._limits.take_tries):
            with suppress(StaleVersion):
                return await self._revising.add(workspace, head, stored, reason, SYSTEM, message, parent=parent)
            workspace = await self._access.current(workspace.id)
            if workspace.head != head.id:
                break
        raise StaleVersion()
