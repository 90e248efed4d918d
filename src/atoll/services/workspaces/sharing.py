"""Sharing: who else may read, write or administer a workspace."""

from __future__ import annotations

from collections.abc import Sequence

from atoll.domain.errors import InvalidInput, NotFound
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Share, Workspace
from atoll.records.base import Records
from atoll.services.identity.principals import Principals
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
        self._principals = Principals(records, access.clock)

    async def list(self, principal: Principal, ref: str) -> list[Share]:
        """By principal. Needs the permission `read`."""
        found = await self._access.find(principal, ref, Permission.READ)
        return await self._records.list_shares(found.workspace.id)

    async def share(
        self, principal: Principal, ref: str, targets: Sequence[str], permission: Permission
    ) -> list[Share]:
        """Give each target that permission, in place of one it has; all collaborators then. Needs `admin`.

        A target is the id of a key (its owner's then) or a user, a username, or a group of one's own. InvalidInput for
        one that is none, or cannot be used, or that owns the workspace; then nothing changed.
        """
        workspace = (await self._access.find(principal, ref, Permission.ADMIN)).workspace
        if not 1 <= len(targets) <= TARGETS_MAX:
            raise InvalidInput(f"share with 1 to {TARGETS_MAX} principals at a time", field="principal")
        meant = [await self._meant(principal, workspace, target) for target in targets]
        for target in dict.fromkeys(meant):
            share = Share(workspace.id, target, permission, self._access.clock())
            event = self._access.event(
                "workspace.shared", workspace, principal.id, collaborator=target, permission=permission.value
            )
            await self._records.put_share(share, event)
            await self._evict(workspace)
        return await self._records.list_shares(workspace.id)

    async def _meant(self, principal: Principal, workspace: Workspace, target: str) -> str:
        meant = await self._principals.named(principal, target, groups=True)
        if meant == workspace.owner:
            raise InvalidInput("principal owns the workspace", field="principal")
        return meant

    async def revoke(self, principal: Principal, ref: str, target: str) -> None:
        """Take it back; live sandboxes whose owners may have the workspace mounted no more end. Needs `admin`; a
        collaborator may give up its own. NotFound when it has none."""
        named = await self._principals.id_of(target)
        need = Permission.READ if principal.id in (target, named) else Permission.ADMIN
        workspace = (await self._access.find(principal, ref, need)).workspace
        for meant in dict.fromkeys((target, named)):
            if meant is None:
                continue
            event = self._access.event("workspace.unshared", workspace, principal.id, collaborator=meant)
            if await self._records.delete_share(workspace.id, meant, event):
                await self._evict(workspace)
                return
        raise NoCollaborator(f"the workspace is not shared with {target[:PRINCIPAL_CHARS_MAX]!r}")

    async def _evict(self, workspace: Workspace) -> None:
        if self.evicting is not None:
            await self.evicting.evict(workspace)
