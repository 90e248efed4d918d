"""Workspaces on demand: those that clients name before anybody made them, as Testbase's do."""

from __future__ import annotations

from contextlib import suppress

from atoll.domain.errors import Conflict
from atoll.domain.ids import workspace_id_of
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission
from atoll.services.workspaces.access import Found, NoWorkspace
from atoll.services.workspaces.workspaces import Workspaces


async def found_or_made(workspaces: Workspaces, principal: Principal, ref: str, *, scope: Scope = Scope.WRITE) -> Found:
    """The workspace that `ref` names, which the principal may write; made, as one's own, where a name names none.

    Errors as of `found_or_free`, and as from `create`.
    """
    found = await found_or_free(workspaces, principal, ref, scope=scope)
    if found is not None:
        return found
    with suppress(Conflict):  # somebody was quicker
        await workspaces.create(principal, ref)
    return await workspaces.access.find(principal, ref, Permission.WRITE, scope=scope)


async def found_or_free(
    workspaces: Workspaces, principal: Principal, ref: str, *, scope: Scope = Scope.WRITE
) -> Found | None:
    """The same without making one: None where that would have to be done.

    NoWorkspace for an id that is unknown or somebody else's: ids are never made on demand. Forbidden.
    """
    try:
        return await workspaces.access.find(principal, ref, Permission.WRITE, scope=scope)
    except NoWorkspace:
        if workspace_id_of(ref) is not None or "/" in ref:
            raise
    return None
