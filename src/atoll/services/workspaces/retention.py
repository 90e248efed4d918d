"""Retention: revisions that nobody asked for go when there are many newer ones, but for one of each day."""

from __future__ import annotations

from datetime import date

from atoll.domain import crash
from atoll.domain.workspace import Revision, Workspace
from atoll.records.base import Records
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import AUTOMATIC, WorkspaceLimits

LISTED_MAX = 1_000_000


class Retention:
    """Thins out the log of a workspace. Heads, snapshots, and what forks and merges come from always stay."""

    def __init__(self, records: Records, access: WorkspaceAccess, limits: WorkspaceLimits) -> None:
        self._records = records
        self._access = access
        self._limits = limits

    async def prune(self, workspace: Workspace) -> int:
        """How many went."""
        listed = await self._records.list_revisions(workspace=workspace.id, limit=LISTED_MAX)
        old = _superfluous(listed, self._limits.revisions_kept)
        if not old:
            return 0
        needed = {workspace.head}
        for other in await self._records.list_revisions(lineage=workspace.lineage, limit=LISTED_MAX):
            if other.merged is not None:
                needed.add(other.merged)
            if other.number == 1 and other.parent is not None:
                needed.add(other.parent)
        going = [revision.id for revision in old if revision.id not in needed]
        if not going:
            return 0
        crash.point("workspaces.prune.chosen")
        event = self._access.event("workspace.pruned", workspace, revisions=len(going))
        return await self._records.delete_revisions(going, event)


def _superfluous(newest_first: list[Revision], kept: int) -> list[Revision]:
    automatic = [revision for revision in newest_first if revision.reason in AUTOMATIC]
    days: set[date] = set()
    going: list[Revision] = []
    for revision in automatic[kept:]:
        day = revision.created_at.date()
        if day in days:
            going.append(revision)
        days.add(day)
    return going
