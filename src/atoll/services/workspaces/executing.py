"""Executing: commands in a workspace's own sandbox, which is made when the first one comes; the Agent Workspace API's.

The sandbox is the owner's, whoever of the collaborators asks; it goes to rest when nobody uses it for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from atoll.domain.errors import Conflict, Forbidden, NotFound, StaleVersion
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.process import ProcessSpec, RunResult
from atoll.domain.sandbox import SandboxSpec, SandboxState
from atoll.domain.workspace import MOUNT_POINT, Permission, Workspace, WorkspaceMount
from atoll.records.base import Records
from atoll.services.identity.principals import Principals
from atoll.services.locks import Locks
from atoll.services.processes import Interrupted
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.mounted import Mounted
from atoll.services.workspaces.sandbox_configs import SandboxConfigs
from atoll.services.workspaces.views import Ran

TRIES = 3  # of a command whose sandbox ends before it starts, and of a record that others change, at the same moment

OWNER_GONE = (
    "the key of the workspace's owner was revoked or has expired, or its user is disabled: nobody runs commands in "
    "its name"
)

Shape = Callable[[dict[str, Any]], SandboxSpec]  # of what was asked for when the workspace was made


class Executing:
    """Runs commands in workspaces."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        configs: SandboxConfigs,
        mounted: Mounted,
        sandboxes: Sandboxes,
    ) -> None:
        self._records = records
        self._access = access
        self._configs = configs
        self._mounted = mounted
        self._sandboxes = sandboxes
        self._locks = Locks()  # not those of trees: making a sandbox takes them

    async def run(
        self,
        principal: Principal,
        ref: str,
        spec: ProcessSpec,
        shape: Shape,
        *,
        max_output_bytes: int = 8 * 2**20,
        request_id: str | None = None,
    ) -> Ran:
        """Run it to its end in the workspace's sandbox; `shape` says what that is like when it must be made.

        Needs `execute`, and of a collaborator `write`. Forbidden when the owner's key was revoked or has expired.
        Errors as from `Sandboxes.create` and `Processes.run`. Cancelling the call ends the command.
        """
        found = await self._access.find(principal, ref, Permission.WRITE, scope=Scope.EXECUTE)
        workspace = found.workspace
        for attempt in range(1, TRIES + 1):
            owner, workspace = await self._sandbox(workspace.id, shape, request_id)
            assert workspace.sandbox_id is not None
            try:
                result = await self._run(owner, workspace.sandbox_id, spec, max_output_bytes)
                return Ran(workspace, result)
            except Interrupted:
                raise  # a command is never run twice
            except (Conflict, NotFound):
                if attempt == TRIES or await self._runs(owner, workspace.sandbox_id):
                    raise
        raise AssertionError

    async def end(self, principal: Principal, ref: str, *, request_id: str | None = None) -> None:
        """Kill the workspace's sandbox where it has one: before it is deleted, and as the owner alone may do that.

        Conflict, and nothing killed, where others have it mounted, so that it could not be deleted."""
        workspace = (await self._access.find(principal, ref, None)).workspace
        self._mounted.check_free(workspace.id, but=workspace.sandbox_id)
        if workspace.sandbox_id is not None:
            owner = await self._owner(workspace)
            with suppress(Conflict, NotFound):
                await self._sandboxes.kill(owner, workspace.sandbox_id, request_id=request_id)

    async def _run(self, owner: Principal, sandbox_id: str, spec: ProcessSpec, most: int) -> RunResult:
        return await self._sandboxes.processes.run(owner, sandbox_id, spec, max_output_bytes=most)

    async def _sandbox(self, workspace_id: str, shape: Shape, request_id: str | None) -> tuple[Principal, Workspace]:
        """The workspace with a sandbox that runs or rests, the one it has or a new one."""
        async with self._locks.hold(workspace_id):
            workspace = await self._access.current(workspace_id)
            owner = await self._owner(workspace)
            if workspace.sandbox_id is not None and await self._runs(owner, workspace.sandbox_id):
                return owner, workspace
            asked = await self._configs.open(workspace)
            spec = replace(shape(asked), workspaces=(WorkspaceMount(workspace.id, MOUNT_POINT),))
            made = await self._sandboxes.create(owner, spec, name=None, request_id=request_id)
            try:
                return owner, await self._attach(owner, workspace, made.id)
            except BaseException:
                with suppress(Conflict, NotFound):
                    await asyncio.shield(self._sandboxes.kill(owner, made.id, request_id=request_id))
                raise

    async def _attach(self, owner: Principal, workspace: Workspace, sandbox_id: str) -> Workspace:
        """The record with that sandbox in it. Another process may have been quicker: then its sandbox counts."""
        before = workspace.sandbox_id
        for _ in range(TRIES):
            event = self._access.event("workspace.attached", workspace, sandbox=sandbox_id)
            try:
                return await self._records.swap_workspace(replace(workspace, sandbox_id=sandbox_id), event)
            except StaleVersion:
                workspace = await self._access.current(workspace.id)
                if workspace.sandbox_id not in (None, before) and await self._runs(owner, workspace.sandbox_id):
                    await self._sandboxes.kill(owner, sandbox_id)
                    return workspace
        raise StaleVersion

    async def _runs(self, owner: Principal, sandbox_id: str) -> bool:
        try:
            sandbox = await self._sandboxes.get(owner, sandbox_id)
        except NotFound:
            return False
        # One that was lost would wait for somebody to resume it: another takes its place, the files are the same.
        return sandbox.live or (sandbox.may_wake and sandbox.state is not SandboxState.FAILED)

    async def _owner(self, workspace: Workspace) -> Principal:
        """The owner, for what is done in its name: a collaborator's command runs in the owner's sandbox. Forbidden when
        the owner's key may do nothing any more."""
        if await Principals(self._records, self._access.clock).has_ended(workspace.owner):
            raise Forbidden(OWNER_GONE)
        key = await self._records.get_key(workspace.owner)
        return Principal(workspace.owner, key.kind if key is not None else KeyKind.STANDARD, frozenset(Scope))
