"""Access: who may do what with which workspace; every part of the workspaces service asks here first."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import NamedTuple

from atoll.domain.errors import Conflict, Forbidden, NotFound
from atoll.domain.event import Event
from atoll.domain.group import Role
from atoll.domain.ids import GROUP_ID, workspace_id_of
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Workspace
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.identity.principals import Principals

REF_CHARS_SHOWN = 200
LISTED_MAX = 10_000  # of one's own, and of those shared with one principal
_REFUSED = {
    None: "only the workspace owner, or an admin of the group that owns it, may do that",
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
        self._principals = Principals(records, clock)
        self.clock = clock
        # Called with the id of a workspace that has a new head or name, or is made or deleted.
        self.changed: Callable[[str], None] = lambda _: None

    async def find(
        self, principal: Principal, ref: str, need: Permission | None, *, scope: Scope | None = None
    ) -> Found:
        """The workspace of an id in any spelling, of one's own with that name, or of another's as `OWNER/NAME`, where
        OWNER is the id or the name of a group, a user or a key. `need` None: only its owner, or an admin of that group.

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
        if not principal.reaches(workspace.owner, workspace.id):
            return None
        return await self._found(workspace, principal.id, principal.groups)

    async def _found(self, workspace: Workspace, principal_id: str, groups: Mapping[str, Role]) -> Found | None:
        """What somebody of those groups may do with it; None: nothing."""
        if workspace.owner == principal_id:
            # What acts in a group's own name, a sandbox of it or a key, is no admin of it.
            return Found(workspace, Permission.WRITE if GROUP_ID.match(principal_id) else None)
        role = groups.get(workspace.owner)
        if role is Role.ADMIN:
            return Found(workspace, None)
        given = [] if role is None else [Permission.READ if role is Role.VIEWER else Permission.WRITE]
        if groups:
            shares = await self._records.list_shares(workspace.id)
        else:
            share = await self._records.get_share(workspace.id, principal_id)
            shares = [] if share is None else [share]
        for share in shares:
            if share.principal == principal_id:
                given.append(share.permission)
            elif share.principal in groups:
                viewer = groups[share.principal] is Role.VIEWER
                given.append(Permission.READ if viewer else share.permission)
        return Found(workspace, max(given, key=tuple(Permission).index)) if given else None

    async def list(self, principal: Principal, *, shared: bool) -> builtins.list[Found]:
        """Its own and its groups', and with `shared` what is shared with one of them, newest first."""
        own = await self._records.list_workspaces(owner=principal.owners, limit=LISTED_MAX)
        found = {one.id: await self._found(one, principal.id, principal.groups) for one in own}
        for owner in principal.owners if shared else ():
            for one in await self._records.list_shared_workspaces(owner, LISTED_MAX):
                if one.workspace.id not in found:
                    found[one.workspace.id] = await self._found(one.workspace, principal.id, principal.groups)
        seen = [one for one in found.values() if one is not None]
        seen = [one for one in seen if principal.reaches(one.workspace.owner, one.workspace.id)]
        return sorted(seen, key=lambda one: (one.workspace.created_at, one.workspace.id), reverse=True)

    async def sees(self, principal: Principal, workspace_id: str) -> bool:
        """Whether a workspace of that id exists for it, whatever its scopes are."""
        return await self._by_id(principal, workspace_id) is not None

    async def _by_name(self, principal: Principal, ref: str) -> Found:
        owner, slash, name = ref.rpartition("/")
        if not slash or owner == principal.id:
            own = await self._records.find_workspace(principal.id, name)
            found = None if own is None else await self._by_id(principal, own.id)
            if found is not None:
                return found
        called = [one for one in await self.list(principal, shared=True) if one.workspace.name == name]
        called = [one for one in called if one.workspace.owner != principal.id]
        if not slash:
            named = [await self._shown(one.workspace.owner) for one in called]
            others = ", ".join(f"{owner}/{name}" for owner in named)
            raise NoWorkspace(ref, f" (shared with you: {others})" if others else "")
        meant = [one for one in called if one.workspace.owner == owner]
        meant = meant or [one for one in called if await self._principals.name_of(one.workspace.owner) == owner]
        if not meant:
            raise NoWorkspace(ref)
        if len(meant) > 1:
            ids = ", ".join(one.workspace.id for one in meant)
            raise Conflict(f"{len(meant)} workspaces are called {ref[:REF_CHARS_SHOWN]!r}: use an id ({ids})")
        return meant[0]

    async def _shown(self, owner: str) -> str:
        """A group by its name, as `OWNER/NAME` takes it; names of keys are not unique."""
        name = await self._principals.name_of(owner) if GROUP_ID.match(owner) else None
        return name or owner

    async def allows(self, workspace: Workspace, principal_id: str, need: Permission) -> bool:
        """Whether somebody has the permission now, whatever the scopes of the credential that came with it."""
        if workspace.owner == principal_id:
            return True
        groups = {one.group.id: one.role for one in await self._records.list_memberships(principal_id)}
        found = await self._found(workspace, principal_id, groups)
        return found is not None and (found.permission is None or found.permission.includes(need))

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
