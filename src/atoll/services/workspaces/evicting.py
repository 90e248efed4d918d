"""Evicting: live sandboxes that have a workspace mounted which their owner may not have any more, end.

Sharing calls it when a share is taken back or made less, and groups when somebody leaves one; those that rest are
refused when they wake.
"""

from __future__ import annotations

from contextlib import suppress

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.key import KeyKind, Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Workspace
from atoll.records.base import Records
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.mounted import Mounted, MountedAt


class Evicting:
    """Ends sandboxes."""

    def __init__(self, records: Records, access: WorkspaceAccess, mounted: Mounted, sandboxes: Sandboxes) -> None:
        self._records = records
        self._access = access
        self._mounted = mounted
        self._sandboxes = sandboxes

    async def evict(self, workspace: Workspace) -> None:
        """Kill those that have more of the workspace mounted than their owners may have now."""
        for one in self._mounted.of_workspace(workspace.id):
            await self._check(one, workspace)

    async def left(self, principal_id: str) -> None:
        """Somebody is less, or nothing, in a group: kill their sandboxes that have more mounted than they may now."""
        for sandbox_id in self._mounted.sandboxes():
            for one in self._mounted.of_sandbox(sandbox_id):
                workspace = await self._records.get_workspace(one.mount.workspace)
                if workspace is not None:
                    await self._check(one, workspace, of=principal_id)

    async def _check(self, one: MountedAt, workspace: Workspace, *, of: str | None = None) -> None:
        sandbox = await self._records.get_sandbox(one.sandbox)
        if sandbox is None or of not in (None, sandbox.owner):
            return
        need = Permission.READ if one.mount.read_only else Permission.WRITE
        if not await self._access.allows(workspace, sandbox.owner, need):
            theirs = Principal(sandbox.owner, KeyKind.STANDARD, frozenset(Scope))
            with suppress(Conflict, NotFound):  # it has ended already
                await self._sandboxes.kill(theirs, one.sandbox)
