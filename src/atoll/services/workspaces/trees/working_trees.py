"""Working trees: how the tree of a workspace comes to be in the runtime, follows its head, and goes again.

Every method that takes a workspace is called under that workspace's lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, NotFound, StaleVersion, Unsupported
from atoll.domain.ids import new_id
from atoll.domain.tree import Entry
from atoll.domain.workspace import Quota, Revision, Workspace
from atoll.records.base import Records
from atoll.runtimes.base import Capability, Runtime
from atoll.services.deadline import deadline
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.quotas import holding
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.trees.filling import difference, steps
from atoll.services.workspaces.trees.stamps import Known, Stamps, TreeState, known_of
from atoll.sidekick.keeper_client import KeeperClient, Step

_log = structlog.get_logger()


async def _nothing() -> AsyncIterator[Step]:
    for step in ():
        yield step


class WorkingTrees:
    """Trees in one runtime, with their stamps."""

    def __init__(
        self,
        runtime: Runtime,
        records: Records,
        access: WorkspaceAccess,
        chunks: ChunkStore,
        manifests: Manifests,
        stamps: Stamps,
        limits: WorkspaceLimits,
    ) -> None:
        self._runtime = runtime
        self._records = records
        self._access = access
        self._chunks = chunks
        self._manifests = manifests
        self._stamps = stamps
        self._limits = limits
        self._there: set[str] = set()  # trees that exist, as far as this process knows
        self.fresh: set[str] = set()  # made by this process, not recorded yet

    @property
    def available(self) -> bool:
        """Whether this runtime keeps trees at all."""
        return Capability.TREES in self._runtime.capabilities

    def require(self) -> None:
        if not self.available:
            raise Unsupported(f"the {self._runtime.name} runtime cannot keep workspaces on this host")

    async def open(self, workspace: Workspace) -> Workspace:
        """The workspace with a working tree: the one it has, or a new one with its head's contents.

        Conflict when it has one in another runtime that may differ from its head.
        """
        self.require()
        for _ in range(self._limits.take_tries):
            workspace = await self.recall(workspace)
            if workspace.tree_id is not None:
                return workspace
            head = await self.head(workspace)
            tree_id = await self.hydrate(workspace.lineage, head.tree, workspace.quota)
            try:
                opened = replace(workspace, tree_id=tree_id, runtime=self._runtime.name)
                workspace = await self._records.swap_workspace(opened, None)
                crash.point("workspaces.open.recorded")
                return workspace
            except StaleVersion:
                await self.remove(tree_id)
                workspace = await self._access.current(workspace.id)
            except BaseException:
                await self.remove(tree_id)
                raise
            finally:
                self.fresh.discard(tree_id)
        raise StaleVersion()

    async def recall(self, workspace: Workspace) -> Workspace:
        """The workspace without its tree when that is gone from the runtime, or lies in another one and is known to
        equal the head."""
        tree_id = workspace.tree_id
        if tree_id is None or (workspace.runtime == self._runtime.name and await self.exists(tree_id)):
            return workspace
        head = await self.head(workspace)
        if workspace.runtime != self._runtime.name and not await self.is_clean(workspace, head):
            raise Conflict(f"its files are in the {workspace.runtime} runtime: take a revision there first")
        _log.warning("workspace.tree_gone", workspace_id=workspace.id, tree_id=tree_id)
        event = self._access.event("workspace.tree_gone", workspace, tree=tree_id)
        workspace = await self._records.swap_workspace(replace(workspace, tree_id=None, runtime=None), event)
        await asyncio.to_thread(self._stamps.forget, tree_id)
        return workspace

    async def exists(self, tree_id: str) -> bool:
        if tree_id not in self._there:
            async with deadline(self._limits.call_s, "listing the working trees"):
                self._there = set(await self._runtime.list_trees())
        return tree_id in self._there

    async def hydrate(self, lineage: str, tree: str, quota: Quota) -> str:
        """A new tree with those contents; its id is in `fresh` until the caller takes it out. Nothing remains of it
        on an error."""
        self.require()
        await self._chunks.allowance.check_disks()
        tree_id = new_id("tree")
        self.fresh.add(tree_id)
        try:
            async with deadline(self._limits.tree_s, "filling the working tree"):
                entries = await self._manifests.load(lineage, tree)
                await self._runtime.make_tree(tree_id, await asyncio.to_thread(holding, quota, entries))
                crash.point("workspaces.tree.made")
                keeper = await self._runtime.keeper(tree_id)
                filling = self._chunks.allowance.while_free(steps(lineage, entries, (), self._chunks))
                seen = await keeper.apply(filling)
                known = known_of(seen, entries, time.time_ns())
                await asyncio.to_thread(self._stamps.save, tree_id, TreeState(tree, known))
            crash.point("workspaces.tree.filled")
        except BaseException:
            await self.remove(tree_id)
            self.fresh.discard(tree_id)
            raise
        self._there.add(tree_id)
        return tree_id

    async def follow(self, workspace: Workspace, before: list[Entry], after: list[Entry], tree: str) -> None:
        """Make the working tree, that has the entries `before`, equal to the head's `after`. It is marked already:
        when this is cut short the next revision sees how far it came."""
        tree_id = workspace.tree_id
        assert tree_id is not None
        written, gone = await asyncio.to_thread(difference, before, after)
        async with deadline(self._limits.tree_s, "changing the working tree"):
            keeper = await self.keeper(workspace)
            seen = await keeper.apply(steps(workspace.lineage, written, gone, self._chunks))
        crash.point("workspaces.follow.applied")
        new = known_of(seen, written, time.time_ns())
        state = await self.state(tree_id)
        old: Known = state.known if state is not None else {}
        known: Known = {}
        for entry in after:
            stamp = new.get(entry.path) or old.get(entry.path)
            if stamp is not None and stamp[1] == entry:
                known[entry.path] = stamp
        await self.save(tree_id, TreeState(tree, known))

    async def keeper(self, workspace: Workspace) -> KeeperClient:
        """NotFound when the tree is gone."""
        assert workspace.tree_id is not None
        return await self.keeper_of(workspace.tree_id)

    async def keeper_of(self, tree_id: str) -> KeeperClient:
        try:
            async with deadline(self._limits.call_s, "starting the workspace's keeper"):
                return await self._runtime.keeper(tree_id)
        except NotFound:
            self._there.discard(tree_id)
            raise

    async def in_use(self, tree_id: str) -> bool:
        """Whether programs may still write in it; True, too, while that cannot be told."""
        try:
            async with deadline(self._limits.call_s, "asking who uses a working tree"):
                return await self._runtime.tree_in_use(tree_id)
        except AtollError as error:
            _log.warning("workspace.tree_use_unknown", tree_id=tree_id, error=error.message)
            return True

    async def remove(self, tree_id: str) -> bool:
        """Whether it is gone. The reconciler comes back to one that somebody has mounted still."""
        try:
            async with deadline(self._limits.call_s, "removing a working tree"):
                await asyncio.shield(self._runtime.remove_tree(tree_id))
        except AtollError as error:
            _log.info("workspace.tree_stays", tree_id=tree_id, error=error.message)
            return False
        self._there.discard(tree_id)
        await asyncio.to_thread(self._stamps.forget, tree_id)
        return True

    async def head(self, workspace: Workspace) -> Revision:
        """Its newest revision."""
        head = await self._records.get_revision(workspace.head)
        if head is None:
            raise NotFound("workspace not found")  # deleted under us
        return head

    # stamps

    async def state(self, tree_id: str) -> TreeState | None:
        return await asyncio.to_thread(self._stamps.load, tree_id)

    async def save(self, tree_id: str, state: TreeState) -> None:
        await asyncio.to_thread(self._stamps.save, tree_id, state)

    def remember(self, tree_id: str, state: TreeState) -> None:
        """As `save`, of a state that differs from the saved one in `scanned` alone."""
        self._stamps.remember(tree_id, state)

    async def mark(self, tree_id: str, workspace: Workspace) -> None:
        """It may differ from the workspace's head from now on; durable."""
        await asyncio.to_thread(self._stamps.mark, tree_id, workspace.id)

    async def marked_by(self, tree_id: str) -> str | None:
        """The workspace of a marked tree, also when it has another tree by now."""
        return await asyncio.to_thread(self._stamps.marked_by, tree_id)

    async def unmark(self, tree_id: str) -> None:
        """It equals its head, also after the machine's power was cut, and nobody can write in it."""
        async with deadline(self._limits.call_s, "writing the working tree to the disk"):
            await (await self.keeper_of(tree_id)).apply(_nothing())
        await asyncio.to_thread(self._stamps.unmark, tree_id)

    def is_marked(self, tree_id: str) -> bool:
        return self._stamps.is_marked(tree_id)

    async def is_clean(self, workspace: Workspace, head: Revision) -> bool:
        """Whether its tree is known to equal the head without a look at it."""
        if workspace.tree_id is None:
            return True
        if self._stamps.is_marked(workspace.tree_id):
            return False
        state = await self.state(workspace.tree_id)
        return state is not None and state.tree == head.tree
