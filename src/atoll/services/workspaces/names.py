"""Names: what workspaces are called by whoever owns them; surfaces that tell of tasks name their workspaces so."""

from __future__ import annotations

from collections.abc import Iterable

from atoll.domain.principal import Principal
from atoll.records.base import Records


class WorkspaceNames:
    """One for a server."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def of(self, principal: Principal, ids: Iterable[str]) -> dict[str, str]:
        """By id, the names of the principal's own, deleted ones too; others', and a group's, are known by their ids."""
        found: dict[str, str] = {}
        for one in set(ids):
            workspace = await self._records.get_workspace(one)
            own = workspace is not None and workspace.owner == principal.id
            found[one] = workspace.name if workspace is not None and own else one
        return found
