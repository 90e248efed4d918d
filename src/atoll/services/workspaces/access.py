"""Access: who may do what with which workspace; every part of the workspaces service asks here first."""

from __future__ import annotations

from typing import NamedTuple

from atoll.domain.errors import Forbidden, NotFound
from atoll.domain.event import Event
from atoll.domain.ids import workspace_id_of
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Workspace
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now

NOT_FOUND = "workspace not found"
_REFUSED = {
    None: "only the workspace owner may do that",
    Permission.ADMIN: "only the workspace owner or an admin collaborator may do that",
    Permission.WRITE: "read-only access cannot change the workspace",
}


class NotPermitted(Forbidden):
    """A collaborator asks for more than was shared with it."""


class Found(NamedTuple):
    """A workspace and what the asker may do with it; None: everything, it is theirs."""

    workspace: Workspace
    permission: Permission | None


class WorkspaceAccess:
    """Finds workspaces for principals."""

    def __init__(self, records: Records, clock: Clock = utc_now) -> None:
        self._records = records
        self.clock = clock

    async def find(
        self, principal: Principal, ref: str, need: Permission | None, *, scope: Scope | None = None
    ) -> Found:
        """The workspace of an id in any spelling, or of one's own with that name. `need` None: only its owner.

        Forbidden without the scope (READ for looking, WRITE for anything else, unless `scope` says), NotPermitted when
        a collaborator may not do that; NotFound, always the same, for what is not there or somebody else's.
        """
        principal.require(scope or (Scope.READ if need is Permission.READ else Scope.WRITE))
        workspace_id = workspace_id_of(ref)
        found = None if workspace_id is None else await self._by_id(principal, workspace_id)
        if found is None:
            own = await self._records.find_workspace(principal.id, ref)
            found = None if own is None else Found(own, None)
        if found is None:
            raise NotFound(NOT_FOUND)
        permission = found.permission
        if permission is not None and (need is None or not permission.includes(need)):
            raise NotPermitted(_REFUSED[need])
        return found

    async def _by_id(self, principal: Principal, workspace_id: str) -> Found | None:
        workspace = await self._records.get_workspace(workspace_id)
        if workspace is None or workspace.deleted_at is not None:
            return None
        if workspace.owner == principal.id:
            return Found(workspace, None)
        share = await self._records.get_share(workspace_id, principal.id)
        return None if share is None else Found(workspace, share.permission)

    async def allows(self, workspace: Workspace, principal_id: str, need: Permission) -> bool:
        """Whether somebody has the permission now, whatever the scopes of the credential that came with it."""
        if workspace.owner == principal_id:
            return True
        share = await self._records.get_share(workspace.id, principal_id)
        return share is not None and share.permission.includes(need)

    async def current(self, workspace_id: str) -> Workspace:
        """As it is stored now. NotFound when it was deleted meanwhile."""
        workspace = await self._records.get_workspace(workspace_id)
        if workspace is None or workspace.deleted_at is not None:
            raise NotFound(NOT_FOUND)
        return workspace

    def event(
        self, action: str, workspace: Workspace, actor: str = "system", *, outcome: str = "ok", **detail: object
    ) -> Event:
        """An event about the workspace, in its owner's tenant."""
        told = {name: value for name, value in detail.items() if value is not None}
        return Event(
            action, workspace.id, tenant=workspace.owner, actor=actor, outcome=outcome, detail=told, at=self.clock()
        )
