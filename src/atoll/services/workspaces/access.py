"""Access: who may do what with which workspace; every part of the workspaces service asks here first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from atoll.domain.errors import Conflict, Forbidden, NotFound
from atoll.domain.event import Event
from atoll.domain.ids import workspace_id_of
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Workspace
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now

REF_CHARS_SHOWN = 200
SHARED_MAX = 10_000
_REFUSED = {
    None: "only the workspace owner may do that",
    Permission.ADMIN: "only the workspace owner or an admin collaborator may do that",
    Permission.WRITE: "read-only access cannot change the workspace",
}


class NotPermitted(Forbidden):
    """A collaborator asks for more than was shared with it."""


class NoWorkspace(NotFound):
    """There is none of that name or id, or it is somebody else's."""

    def __init__(self, ref: str, hint: str = "") -> None:
        super().__init__(f"workspace not found: {ref[:REF_CHARS_SHOWN]!r}{hint}")


class Found(NamedTuple):
    """A workspace and what the asker may do with it; None: everything, it is theirs."""

    workspace: Workspace
    permission: Permission | None


class WorkspaceAccess:
    """Finds workspaces for principals."""

    def __init__(self, records: Records, clock: Clock = utc_now) -> None:
        self._records = records
        self.clock = clock
        # Called with the id of a workspace that has a new head or name, or is made or deleted.
        self.changed: Callable[[str], None] = lambda _: None

    async def find(
        self, principal: Principal, ref: str, need: Permission | None, *, scope: Scope | None = None
    ) -> Found:
        """The workspace of an id in any spelling, of one's own with that name, or of another's as `OWNER/NAME`, where
        OWNER is the id or the name of their key. `need` None: only its owner.

        Forbidden without the scope (READ for looking, WRITE for anything else, unless `scope` says), NotPermitted when
        a collaborator may not do that; NoWorkspace, always the same, for what is not there or somebody else's; Conflict
        when several of others go by that name. A name alone never means another's: who shares a workspace of that name
        unasked would get what is meant for one's own.
        """
        principal.require(scope or (Scope.READ if need is Permission.READ else Scope.WRITE))
        workspace_id = workspace_id_of(ref)
        found = None if workspace_id is None else await self._by_id(principal, workspace_id)
        if found is None:
            found = await self._by_name(principal, ref)
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

    async def _by_name(self, principal: Principal, ref: str) -> Found:
        owner, slash, name = ref.rpartition("/")
        if not slash or owner == principal.id:
            own = await self._records.find_workspace(principal.id, name)
            if own is not None:
                return Found(own, None)
        shared = await self._records.list_shared_workspaces(principal.id, SHARED_MAX)
        called = [one for one in shared if one.workspace.name == name]
        if not slash:
            others = ", ".join(f"{one.workspace.owner}/{name}" for one in called)
            raise NoWorkspace(ref, f" (shared with you: {others})" if others else "")
        meant = [one for one in called if one.workspace.owner == owner]
        meant = meant or [one for one in called if await self._name_of(one.workspace.owner) == owner]
        if not meant:
            raise NoWorkspace(ref)
        if len(meant) > 1:
            ids = ", ".join(one.workspace.id for one in meant)
            raise Conflict(f"{len(meant)} workspaces are called {ref[:REF_CHARS_SHOWN]!r}: use an id ({ids})")
        return Found(meant[0].workspace, meant[0].permission)

    async def _name_of(self, key_id: str) -> str | None:
        key = await self._records.get_key(key_id)
        return None if key is None else key.name

    async def allows(self, workspace: Workspace, principal_id: str, need: Permission) -> bool:
        """Whether somebody has the permission now, whatever the scopes of the credential that came with it."""
        if workspace.owner == principal_id:
            return True
        share = await self._records.get_share(workspace.id, principal_id)
        return share is not None and share.permission.includes(need)

    async def current(self, workspace_id: str) -> Workspace:
        """As it is stored now. NoWorkspace when it was deleted meanwhile."""
        workspace = await self._records.get_workspace(workspace_id)
        if workspace is None or workspace.deleted_at is not None:
            raise NoWorkspace(workspace_id)
        return workspace

    def event(
        self, action: str, workspace: Workspace, actor: str = "system", *, outcome: str = "ok", **detail: object
    ) -> Event:
        """An event about the workspace, in its owner's tenant."""
        told = {name: value for name, value in detail.items() if value is not None}
        return Event(
            action, workspace.id, tenant=workspace.owner, actor=actor, outcome=outcome, detail=told, at=self.clock()
        )
