"""Sharing: who else may read, write or administer a workspace."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Share, Workspace
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.evicting import Evicting

TARGETS_MAX = 100
PRINCIPAL_CHARS_MAX = 128  # of one that is no key's, in the error


class NoCollaborator(NotFound):
    """The workspace is not shared with that principal."""


class Sharing:
    """Collaborators of workspaces."""

    evicting: Evicting | None = None  # Workspaces.join sets it, since it needs the sandboxes

    def __init__(self, records: Records, access: WorkspaceAccess) -> None:
        self._records = records
        self._access = access

    async def list(self, principal: Principal, ref: str) -> list[Share]:
        """By principal. Needs the permission `read`."""
        found = await self._access.find(principal, ref, Permission.READ)
        return await self._records.list_shares(found.workspace.id)

    async def share(
        self, principal: Principal, ref: str, targets: Sequence[str], permission: Permission
    ) -> list[Share]:
        """Give each target that permission, in place of one it has; all collaborators then. Needs `admin`.

        InvalidInput for a target that is not the id of a key of this server that can be used, or that owns the
        workspace; then nothing changed.
        """
        workspace = (await self._access.find(principal, ref, Permission.ADMIN)).workspace
        if not 1 <= len(targets) <= TARGETS_MAX:
            raise InvalidInput(f"share with 1 to {TARGETS_MAX} principals at a time", field="principal")
        for target in targets:
            await self._check(workspace, target)
        for target in dict.fromkeys(targets):
            share = Share(workspace.id, target, permission, self._access.clock())
            event = self._access.event(
                "workspace.shared", workspace, principal.id, collaborator=target, permission=permission.value
            )
            await self._records.put_share(share, event)
            await self._evict(workspace, target)
        return await self._records.list_shares(workspace.id)

    async def _check(self, workspace: Workspace, target: str) -> None:
        shown = target[:PRINCIPAL_CHARS_MAX]
        key = (
            await self._records.get_key(target)
            if shown == target and target.isascii() and target.isprintable()
            else None
        )
        if key is None or not key.usable(self._access.clock()):
            raise InvalidInput(f"principal must be the id of a key of this server, not {shown!r}", field="principal")
        if target == workspace.owner:
            raise InvalidInput("principal owns the workspace", field="principal")

    async def revoke(self, principal: Principal, ref: str, target: str) -> None:
        """Take it back; live sandboxes of that principal that have the workspace mounted end. Needs `admin`; a
        collaborator may give up its own. NotFound when it has none."""
        need = Permission.READ if target == principal.id else Permission.ADMIN
        workspace = (await self._access.find(principal, ref, need)).workspace
        event = self._access.event("workspace.unshared", workspace, principal.id, collaborator=target)
        if not await self._records.delete_share(workspace.id, target, event):
            raise NoCollaborator(f"the workspace is not shared with {target[:PRINCIPAL_CHARS_MAX]!r}")
        await self._evict(workspace, target)

    async def _evict(self, workspace: Workspace, target: str) -> None:
        if self.evicting is not None:
            await self.evicting.evict(workspace, target)
