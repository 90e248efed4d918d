"""Evicting: live sandboxes that have a workspace mounted which their owner may not have any more, end.

Sharing calls it when a share is taken back or made less; those that rest are refused when they wake.
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
from atoll.services.workspaces.mounted import Mounted


class Evicting:
    """Ends sandboxes."""

    def __init__(self, records: Records, access: WorkspaceAccess, mounted: Mounted, sandboxes: Sandboxes) -> None:
        self._records = records
        self._access = access
        self._mounted = mounted
        self._sandboxes = sandboxes

    async def evict(self, workspace: Workspace, principal_id: str) -> None:
        """Kill that principal's sandboxes with more of the workspace than is shared with it now."""
        for one in self._mounted.of_workspace(workspace.id):
            sandbox = await self._records.get_sandbox(one.sandbox)
            need = Permission.READ if one.mount.read_only else Permission.WRITE
            if sandbox is None or sandbox.owner != principal_id:
                continue
            if not await self._access.allows(workspace, principal_id, need):
                theirs = Principal(principal_id, KeyKind.STANDARD, frozenset(Scope))
                with suppress(Conflict, NotFound):  # it has ended already
                    await self._sandboxes.kill(theirs, one.sandbox)
