"""Mounts: workspaces in sandboxes; the sandbox services tell it what they make and what has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from atoll.domain.errors import AtollError, NotFound
from atoll.domain.key import Scope
from atoll.domain.mounts import check_mounts
from atoll.domain.principal import Principal
from atoll.domain.sandbox import LIVE, Sandbox
from atoll.domain.workspace import Permission, Reason, WorkspaceMount
from atoll.records.base import Records
from atoll.runtimes.base import Runtime
from atoll.services.background import Background
from atoll.services.deadline import deadline
from atoll.services.locks import Locks
from atoll.services.workspaces.access import NotPermitted, WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.mounted import Mounted, MountedAt
from atoll.services.workspaces.old_trees import OldTrees
from atoll.services.workspaces.revising import Revising
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.storage.sealed_values import SealedValues
from atoll.services.workspaces.trees.working_trees import WorkingTrees

_log = structlog.get_logger()

SUSPENDED = frozenset({"idle", "suspended"})  # reasons of a sandbox's end that a later use takes back
RECORDS_MAX = 100_000


class Swapping(Protocol):
    """Who brings a mount of an old tree to the workspace's present one."""

    async def catch_up(self, one: MountedAt) -> None: ...


class Mounts:
    """What a sandbox has mounted, from before it is made until after its end."""

    def __init__(
        self,
        records: Records,
        runtime: Runtime,
        access: WorkspaceAccess,
        trees: WorkingTrees,
        revising: Revising,
        swapping: Swapping,
        old_trees: OldTrees,
        mounted: Mounted,
        locks: Locks,
        background: Background,
        keys: LineageKeys,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._runtime = runtime
        self._access = access
        self._trees = trees
        self._revising = revising
        self._swapping = swapping
        self._old_trees = old_trees
        self._mounted = mounted
        self._locks = locks
        self._background = background
        self._sealed = SealedValues(keys)
        self._limits = limits

    async def resolve(
        self, principal: Principal, mounts: Sequence[WorkspaceMount], owner: str | None = None
    ) -> tuple[WorkspaceMount, ...]:
        """The same mounts with ids in place of refs. Needs `write` on those that are not read-only, of the sandbox's
        `owner` too: whoever gets into the sandbox gets at the files.

        NotFound for a workspace, Forbidden, Unsupported by this runtime, InvalidInput (`workspaces.path`) for a path.
        """
        if not mounts:
            return ()
        self._trees.require()
        resolved: list[WorkspaceMount] = []
        for mount in check_mounts(mounts):
            need = _needed(mount)
            found = await self._access.find(principal, mount.workspace, need, scope=Scope.EXECUTE)
            if owner not in (None, principal.id) and not await self._access.allows(found.workspace, owner, need):
                raise NotPermitted(f"the workspace is not shared with the sandbox's owner {owner} to {need}")
            resolved.append(replace(mount, workspace=found.workspace.id, tree_id=""))
        return tuple(resolved)

    async def prepare(
        self, sandbox_id: str, owner: str, mounts: Sequence[WorkspaceMount]
    ) -> tuple[WorkspaceMount, ...]:
        """The mounts of `resolve` with their trees, there and filled, for its owner's sandbox about to be made; `made`
        or `ended` follows. NotFound when one was deleted meanwhile, NotPermitted when its share was taken back."""
        ready: list[WorkspaceMount] = []
        try:
            for mount in mounts:
                async with self._locks.hold(mount.workspace):
                    workspace = await self._trees.open(await self._access.current(mount.workspace))
                    assert workspace.tree_id is not None
                    if not mount.read_only:
                        await self._trees.mark(workspace.tree_id, workspace)
                    mount = replace(mount, tree_id=workspace.tree_id)
                    self._mounted.enter(sandbox_id, [mount], made=False)
                    # Entered first: a share that is taken back after this look finds the sandbox and ends it.
                    need = _needed(mount)
                    if not await self._access.allows(workspace, owner, need):
                        raise NotPermitted(f"the workspace is not shared with the sandbox's owner to {need} any more")
                ready.append(mount)
        except BaseException:
            self._mounted.leave(sandbox_id)
            raise
        return tuple(ready)

    async def made(self, sandbox_id: str) -> None:
        """The sandbox exists. A restore that came in between is brought to it."""
        self._mounted.made(sandbox_id)
        for one in self._mounted.of_sandbox(sandbox_id):
            workspace = await self._records.get_workspace(one.mount.workspace)
            if workspace is not None and workspace.tree_id != one.mount.tree_id:
                await self._swapping.catch_up(one)

    async def seal_env(self, sandbox_id: str, env: Mapping[str, str], mounts: Sequence[WorkspaceMount]) -> str:
        """The environment as text for the sandbox's record, sealed under the key of its first workspace."""
        return await self._sealed.seal(await self._lineage(mounts), _env_label(sandbox_id), dict(env))

    async def open_env(self, sandbox_id: str, sealed: str, mounts: Sequence[WorkspaceMount]) -> dict[str, str]:
        """What `seal_env` sealed for that sandbox. NotFound when the workspace's key is gone, Corrupt."""
        return await self._sealed.open(await self._lineage(mounts), _env_label(sandbox_id), sealed)

    async def _lineage(self, mounts: Sequence[WorkspaceMount]) -> str:
        return (await self._access.current(mounts[0].workspace)).lineage

    def changed(self, sandbox: Sandbox) -> None:
        """A process in it, or a file operation, may have changed files."""
        for one in self._mounted.of_sandbox(sandbox.id):
            self._old_trees.look_soon(one.mount.workspace)
            if not one.mount.read_only:
                self._revising.touched(one.mount.workspace)

    def ended(self, sandbox: Sandbox) -> None:
        """Nothing of it is left: what it wrote becomes a revision, soon. The marks of its trees outlive a crash."""
        reason = Reason.SUSPEND if sandbox.reason in SUSPENDED else Reason.STOP
        mounts = self._mounted.leave(sandbox.id) or list(sandbox.spec.workspaces)
        for workspace_id in {mount.workspace for mount in mounts}:
            self._old_trees.look_soon(workspace_id)
        for workspace_id in {mount.workspace for mount in mounts if not mount.read_only}:
            self._background.spawn(self._revising.automatic(workspace_id, reason), f"revise {workspace_id}")

    async def adopt(self) -> None:
        """At start: what live sandboxes have mounted, as the records tell and the runtime knows better."""
        for sandbox in await self._records.list_sandboxes(states=LIVE, removed=None, limit=RECORDS_MAX):
            if not sandbox.spec.workspaces:
                continue
            trees: dict[str, str] = {}
            try:
                async with deadline(self._limits.call_s, "asking what is mounted"):
                    trees = {mount.path: mount.tree_id for mount in await self._runtime.tree_mounts(sandbox.id)}
            except NotFound:
                pass  # the sandboxes' own reconciler finds out that it is gone, and tells `ended`
            except AtollError as error:
                _log.warning("workspace.mounts_unknown", sandbox_id=sandbox.id, error=error.message)
            known = [replace(one, tree_id=trees.get(one.path, one.tree_id)) for one in sandbox.spec.workspaces]
            self._mounted.enter(sandbox.id, [one for one in known if one.tree_id], made=True)


def _needed(mount: WorkspaceMount) -> Permission:
    return Permission.READ if mount.read_only else Permission.WRITE


def _env_label(sandbox_id: str) -> str:
    return f"environment of {sandbox_id}"
