"""Upkeep: what makes workspaces whole after a crash and keeps them so: at start, and on a timer until the end.

What a sandbox wrote becomes a revision even when the server died before it could; trees that no record knows go; mounts
of old trees are swapped; keys of deleted workspaces are shredded; daily revisions, retention and the collector run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta

import structlog

from atoll.domain.errors import AtollError, NotFound
from atoll.domain.workspace import Reason, Workspace
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.deadline import deadline
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.mounted import Mounted
from atoll.services.workspaces.mounts import Mounts
from atoll.services.workspaces.old_trees import OldTrees
from atoll.services.workspaces.restoring import Restoring
from atoll.services.workspaces.retention import Retention
from atoll.services.workspaces.revising import Revising
from atoll.services.workspaces.sandbox_configs import SandboxConfigs
from atoll.services.workspaces.shredding import Shredding
from atoll.services.workspaces.snapshots import Snapshots
from atoll.services.workspaces.storage.collecting import Collector
from atoll.services.workspaces.trees.working_trees import WorkingTrees

_log = structlog.get_logger()

LISTED_MAX = 1_000_000


class Upkeep:
    """One pass at a time."""

    def __init__(
        self,
        records: Records,
        runtime: Runtime,
        access: WorkspaceAccess,
        trees: WorkingTrees,
        revising: Revising,
        restoring: Restoring,
        old_trees: OldTrees,
        snapshots: Snapshots,
        shredding: Shredding,
        retention: Retention,
        collector: Collector,
        sandbox_configs: SandboxConfigs,
        mounts: Mounts,
        mounted: Mounted,
        locks: Locks,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._runtime = runtime
        self._access = access
        self._trees = trees
        self._revising = revising
        self._restoring = restoring
        self._old_trees = old_trees
        self._snapshots = snapshots
        self._shredding = shredding
        self._retention = retention
        self._collector = collector
        self._sandbox_configs = sandbox_configs
        self._mounts = mounts
        self._mounted = mounted
        self._locks = locks
        self._limits = limits
        self._orphans: dict[str, float] = {}  # when each was first seen, on the monotonic clock
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self._trees.available:
            await self._mounts.adopt()
            await _quietly(self._adopt_old_trees(), "old trees")
        self._loops.append(asyncio.create_task(self._reconcile_on_timer(), name="workspaces reconciler"))
        self._loops.append(asyncio.create_task(self._collect_on_timer(), name="workspaces collector"))

    async def close(self) -> None:
        for task in self._loops:
            task.cancel()
        for task in self._loops:
            with suppress(asyncio.CancelledError):
                await task
        self._loops.clear()

    async def reconcile(self) -> None:
        """One pass. What fails for one workspace is logged and does not keep the others."""
        if self._trees.available:
            await self._reconcile_trees()
        for workspace in await self._records.list_workspaces(deleted=True, limit=LISTED_MAX):
            await _quietly(self._shredding.after(workspace), workspace.id)

    async def prune(self) -> None:
        """Revisions and snapshots beyond what is kept."""
        for workspace in await self._records.list_workspaces(limit=LISTED_MAX):
            await _quietly(self._retention.prune(workspace), workspace.id)
            await _quietly(self._snapshots.prune(workspace.id), workspace.id)

    async def _reconcile_trees(self) -> None:
        # Trees first: what is made in between is not listed, and what is recorded in between is not an orphan.
        async with deadline(self._limits.call_s, "listing the working trees"):
            there = set(await self._runtime.list_trees())
        workspaces = await self._records.list_workspaces(with_tree=True, limit=LISTED_MAX)
        recorded = {one.tree_id for one in workspaces}
        for one in [one for sandbox in self._mounted.sandboxes() for one in self._mounted.of_sandbox(sandbox)]:
            if one.made and one.mount.tree_id not in recorded:
                await _quietly(self._restoring.catch_up(one), one.mount.workspace)
        for workspace in workspaces:
            if workspace.runtime == self._runtime.name:
                await _quietly(self._look_after(workspace, there), workspace.id)
        orphans = there - recorded - self._trees.fresh
        await self._old_trees.adopt(orphans)
        unowned = orphans - self._old_trees.all()  # nobody ever had them to write in
        for workspace_id in self._old_trees.workspaces():
            await _quietly(self._old_trees.look_again(workspace_id), workspace_id)
        for tree_id in unowned:
            first = self._orphans.setdefault(tree_id, time.monotonic())
            if time.monotonic() - first >= self._limits.orphan_grace_s and not self._mounted.has_tree(tree_id):
                await _quietly(self._trees.remove(tree_id), tree_id)
        self._orphans = {tree_id: first for tree_id, first in self._orphans.items() if tree_id in unowned}

    async def _adopt_old_trees(self) -> None:
        async with deadline(self._limits.call_s, "listing the working trees"):
            there = set(await self._runtime.list_trees())
        recorded = {one.tree_id for one in await self._records.list_workspaces(with_tree=True, limit=LISTED_MAX)}
        await self._old_trees.adopt(there - recorded)

    async def _look_after(self, workspace: Workspace, there: set[str]) -> None:
        tree_id = workspace.tree_id
        assert tree_id is not None
        if tree_id not in there:
            async with self._locks.hold(workspace.id):
                await self._trees.recall(await self._access.current(workspace.id))
            return
        if not self._trees.is_marked(tree_id):
            return
        if not self._mounted.writable(workspace.id):  # its sandbox has ended, and the server before the revision
            await self._revising.automatic(workspace.id, Reason.STOP)
            return
        head = await self._trees.head(workspace)
        if self._access.clock() - head.created_at >= timedelta(seconds=self._limits.daily_every_s):
            await self._revising.automatic(workspace.id, Reason.DAILY)

    async def _reconcile_on_timer(self) -> None:
        # A sandbox whose end is stored may live until the sandboxes' own reconciler, which starts after us, is through.
        await asyncio.sleep(self._limits.settle_s)
        await _quietly(self._sandbox_configs.seal_clear_ones(), "sandbox configurations")
        while True:
            await _quietly(self.reconcile(), "all")
            await asyncio.sleep(self._limits.reconcile_every_s)

    async def _collect_on_timer(self) -> None:
        while True:
            await asyncio.sleep(self._limits.collect_every_s)
            await _quietly(self.prune(), "all")
            await _quietly(self._collector.collect(), "all")


async def _quietly(work: Awaitable[object], what: str) -> None:
    try:
        await work
    except NotFound:
        pass  # it was deleted meanwhile
    except AtollError as error:
        _log.warning("workspaces.upkeep_failed", what=what, error=error.message)
    except Exception:
        _log.exception("workspaces.upkeep_failed", what=what)
