"""Reach: what the ids mean that bound a credential; keys that keys make, and capabilities of sandboxes, ask here."""

from __future__ import annotations

from collections.abc import Collection

from atoll.domain.errors import InvalidInput
from atoll.domain.ids import GROUP_ID, SANDBOX_ID, workspace_id_of
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess


async def seen(
    records: Records, workspaces: WorkspaceAccess, principal: Principal, asked: Collection[str], field: str
) -> frozenset[str]:
    """The ids of what the principal sees under those. InvalidInput, naming `field`, for what is nothing of theirs."""
    found: set[str] = set()
    for text in dict.fromkeys(asked):
        one = await _seen(records, workspaces, principal, text)
        if one is None:
            raise InvalidInput(f"nothing of yours has the id {text[:64]!r}", field=field)
        found.add(one)
    return frozenset(found)


async def _seen(records: Records, workspaces: WorkspaceAccess, principal: Principal, text: str) -> str | None:
    """Of a sandbox, a workspace, or all of an owner's."""
    if text == principal.id or GROUP_ID.match(text):
        return text if principal.sees(text, text) else None
    if SANDBOX_ID.match(text):
        sandbox = await records.get_sandbox(text)
        there = sandbox is not None and not sandbox.removed and principal.sees(sandbox.owner, sandbox.id)
        return text if there else None
    workspace_id = workspace_id_of(text)
    if workspace_id is None or not await workspaces.sees(principal, workspace_id):
        return None
    return workspace_id
