"""OwnSandboxes: sandboxes each with a workspace of its own, which begins empty or as a snapshot and ends with it.

ComputeSDK's gateway and the child sandboxes of the sidekick API are made here. A workspace that has snapshots stays
until the last of them is deleted.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import structlog

from atoll.domain.errors import AtollError, Conflict, InvalidInput, NotFound
from atoll.domain.key import KeyKind, Scope
from atoll.domain.mounts import clean_path
from atoll.domain.principal import Principal
from atoll.domain.sandbox import Sandbox, SandboxSpec, SandboxState
from atoll.domain.workspace import MOUNT_POINT, Snapshot, Workspace, WorkspaceMount
from atoll.records.base import Records
from atoll.services.background import Background
from atoll.services.clock import Clock, utc_now
from atoll.services.deadline import deadline
from atoll.services.sandbox_metadata import checked_metadata
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.views import Changes
from atoll.services.workspaces.workspaces import Workspaces

_log = structlog.get_logger()

TAG = "of-a-sandbox"  # of workspaces that end with their sandbox
NAME_PREFIX = "sandbox-"
NAME = re.compile(NAME_PREFIX + "[0-9a-f]{16}")
UNUSED_S = 600.0  # after which one that no sandbox has mounted is a rest of a making that was cut short
LISTED_MAX = 10_000
SANDBOXES_MAX = 1_000_000
MADE_BY = frozenset({Scope.EXECUTE, Scope.WRITE})
REMOVE_S, REMOVE_TRIES, REMOVE_AGAIN_S = 60.0, 5, 1.0
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants. `directory` is where they work: below the workspace's mount point, or that itself."""

    spec: SandboxSpec
    directory: str | None = None
    name: str | None = None
    namespace: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    snapshot: str | None = None  # its id: with whose files the workspace begins
    group: str | None = None


class OwnSandboxes:
    """app.py: construct, `await start()` after the sandboxes, `await close()` before them."""

    def __init__(
        self, records: Records, sandboxes: Sandboxes, workspaces: Workspaces, *, clock: Clock = utc_now
    ) -> None:
        self._records = records
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._clock = clock
        self._background = Background()
        self._later: asyncio.TimerHandle | None = None
        sandboxes.hear_of_ends(self._ended)

    async def start(self) -> None:
        """Delete the workspaces of sandboxes that ended while no server was there; and later those that the end of a
        server left a moment ago, once nobody can be about to mount them any more."""
        self._begin_sweep()
        self._later = asyncio.get_running_loop().call_later(1.1 * UNUSED_S, self._begin_sweep)

    async def close(self) -> None:
        """What is under way gets a moment. A second call does nothing."""
        if self._later is not None:
            self._later.cancel()
        await self._background.close(CLOSE_S)

    async def create(self, principal: Principal, asked: Asked, *, request_id: str | None = None) -> Sandbox:
        """Make one, RUNNING, with its workspace. Needs `execute` and `write`. Errors as from `Workspaces.create` or
        `Forks.fork`, and `Sandboxes.create`; NotFound for the snapshot. Nothing stays of what failed."""
        for scope in sorted(MADE_BY):
            principal.require(scope)
        mount, work_dir = places(asked.directory)
        workspace = await self._workspace(principal, asked)
        try:
            spec = replace(asked.spec, workspaces=(WorkspaceMount(workspace, mount),), work_dir=work_dir)
            made = await self._sandboxes.create(
                principal,
                spec,
                name=asked.name,
                namespace=asked.namespace,
                metadata=asked.metadata,
                group=asked.group,
                request_id=request_id,
            )
        except BaseException:
            self._background.spawn(self._remove(workspace), f"delete {workspace}")
            raise
        return made

    async def keep_files(self, sandbox: Sandbox, tag: str) -> None:
        """Its workspace is to outlive it, as any other that its owner has, with a tag that says whence it is."""
        for mount in sandbox.spec.workspaces:
            workspace = await self._records.get_workspace(mount.workspace)
            if workspace is not None and _is_of_a_sandbox(workspace):
                tags = (*(one for one in workspace.tags if one != TAG), tag)
                await self._workspaces.change(_owner_of(workspace), workspace.id, Changes(tags=tags))

    async def abandon(self, principal: Principal, sandbox_id: str, *, request_id: str | None = None) -> None:
        """End one that could not be made whole; what keeps it from ending is the reconciler's."""
        with suppress(AtollError):
            await asyncio.shield(self._sandboxes.end(principal, sandbox_id, request_id=request_id))

    async def snapshot(
        self, principal: Principal, sandbox_id: str, name: str | None, metadata: Mapping[str, Any] | None = None
    ) -> Snapshot:
        """Keep what is in its workspace now. Needs `write`. Conflict for a sandbox that has none."""
        sandbox = await self._sandboxes.get(principal, sandbox_id)
        writable = [mount.workspace for mount in sandbox.spec.workspaces if not mount.read_only]
        if not writable:
            raise Conflict("the sandbox has no workspace: there is nothing to keep")
        kept = checked_metadata(metadata)
        text = json.dumps(kept) if kept else ""
        return await self._workspaces.snapshots.create(principal, writable[0], name=name, keep=True, metadata=text)

    async def snapshots(self, principal: Principal) -> list[Snapshot]:
        """Those of workspaces that the principal sees and owns, newest first. Needs `read`."""
        principal.require(Scope.READ)
        found: list[Snapshot] = []
        for owner in principal.owners:
            found += await self._records.list_snapshots(owner=owner, limit=LISTED_MAX)
        seen = [one for one in found if principal.sees(one.owner, one.workspace)]
        return sorted(seen, key=lambda one: (one.created_at, one.id), reverse=True)

    async def find_snapshot(self, principal: Principal, snapshot_id: str) -> Snapshot:
        """NotFound, always the same, for one that is unknown or somebody else's."""
        for owner in principal.owners:
            one = await self._records.find_snapshot(owner, snapshot_id)
            if one is not None and principal.sees(one.owner, one.workspace):
                return one
        raise NotFound("snapshot not found")

    async def delete_snapshot(self, principal: Principal, snapshot_id: str) -> None:
        """Needs `write`. With the last one goes a workspace whose sandbox has ended."""
        principal.require(Scope.WRITE)
        one = await self.find_snapshot(principal, snapshot_id)
        await self._workspaces.snapshots.delete(principal, one.workspace, one.id)
        self._background.spawn(self._remove(one.workspace), f"delete {one.workspace}")

    async def _workspace(self, principal: Principal, asked: Asked) -> str:
        name = NAME_PREFIX + secrets.token_hex(8)
        if asked.snapshot is None:
            made = await self._workspaces.create(principal, name, tags=(TAG,), group=asked.group)
            return made.workspace.id
        source = await self.find_snapshot(principal, asked.snapshot)
        fork = self._workspaces.forks.fork
        made = await fork(principal, source.workspace, name, source.id, asked.group, tags=(TAG,))
        return made.workspace.id

    def _ended(self, sandbox: Sandbox) -> None:
        if not sandbox.ended or sandbox.may_wake:
            return
        for mount in sandbox.spec.workspaces:
            self._background.spawn(self._remove(mount.workspace), f"delete {mount.workspace}")

    async def _remove(self, workspace_id: str) -> None:
        """Delete it, unless it has a life of its own: it was kept, has snapshots, or is mounted elsewhere."""
        for attempt in range(REMOVE_TRIES):
            workspace = await self._records.get_workspace(workspace_id)
            if workspace is None or workspace.deleted_at is not None or not _is_of_a_sandbox(workspace):
                return
            if await self._records.list_snapshots(workspace=workspace_id, limit=1) or await self._rests(workspace):
                return
            try:
                async with deadline(REMOVE_S, "deleting the workspace of a sandbox"):
                    await self._workspaces.delete(_owner_of(workspace), workspace_id)
                return
            except AtollError as error:  # its last revision is being taken, say
                if attempt == REMOVE_TRIES - 1:
                    _log.info("own_workspace.left", workspace_id=workspace_id, error=error.message)
            await asyncio.sleep(REMOVE_AGAIN_S)

    async def _rests(self, workspace: Workspace) -> bool:
        """Whether a sandbox of its owner's needs it to wake; those that run have it mounted, which `delete` sees."""
        states = {SandboxState.SUSPENDED, SandboxState.FAILED}
        found = await self._records.list_sandboxes(owner=workspace.owner, states=states, limit=SANDBOXES_MAX)
        return any(_has(one, workspace.id) for one in found)

    def _begin_sweep(self) -> None:
        self._background.spawn(self._sweep(), "workspaces of ended sandboxes")

    async def _sweep(self) -> None:
        before = self._clock() - timedelta(seconds=UNUSED_S)
        found = [one for one in await self._records.list_workspaces(limit=SANDBOXES_MAX) if _is_of_a_sandbox(one)]
        old = [one for one in found if one.updated_at < before]
        if not old:
            return
        sandboxes = await self._records.list_sandboxes(removed=None, limit=SANDBOXES_MAX)
        for workspace in old:
            if not any(_has(one, workspace.id) for one in sandboxes):
                await self._remove(workspace.id)


def _is_of_a_sandbox(workspace: Workspace) -> bool:
    """A fork of one has its tag, and not such a name; one that was renamed was meant to stay."""
    return TAG in workspace.tags and NAME.fullmatch(workspace.name) is not None


def _owner_of(workspace: Workspace) -> Principal:
    return Principal(workspace.owner, KeyKind.INTERNAL, frozenset(Scope))


def _has(sandbox: Sandbox, workspace_id: str) -> bool:
    """Whether it has the workspace mounted, or will when it wakes."""
    return (not sandbox.ended or sandbox.may_wake) and any(
        mount.workspace == workspace_id for mount in sandbox.spec.workspaces
    )


def places(directory: str | None) -> tuple[str, str]:
    """Where the workspace is mounted, and where work begins. InvalidInput for what is no folder of its own."""
    if directory is None or directory in ("", ".", "/", MOUNT_POINT):
        return MOUNT_POINT, MOUNT_POINT
    parts = [part for part in directory.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in directory or len(directory) > 1_024:
        raise InvalidInput("directory must be a path without '..'", field="directory")
    if not directory.startswith("/"):
        return MOUNT_POINT, "/".join((MOUNT_POINT, *parts))
    try:
        path = clean_path(directory)
    except InvalidInput as error:
        raise InvalidInput(error.message.replace("workspaces.path", "directory"), field="directory") from None
    if path == MOUNT_POINT or path.startswith(MOUNT_POINT + "/"):
        return MOUNT_POINT, path
    return path, path
