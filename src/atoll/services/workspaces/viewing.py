"""Viewing: records put together into what the service answers with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from atoll.domain.ids import GROUP_ID
from atoll.domain.workspace import Permission, Revision, Workspace
from atoll.records.base import Records
from atoll.services.identity.principals import Principals
from atoll.services.workspaces.access import NoWorkspace
from atoll.services.workspaces.mounted import Mounted
from atoll.services.workspaces.storage.allowance import Allowance, Use
from atoll.services.workspaces.unrecorded import Unrecorded
from atoll.services.workspaces.views import RevisionView, WorkspaceView

SNAPSHOTS_MAX = 10_000


class Viewing:
    """Views of workspaces and revisions, for whoever has been found to be allowed to see them."""

    def __init__(self, records: Records, mounted: Mounted, allowance: Allowance, unrecorded: Unrecorded) -> None:
        self._records = records
        self._mounted = mounted
        self._allowance = allowance
        self._unrecorded = unrecorded
        self._principals = Principals(records)

    async def workspace(
        self, workspace: Workspace, permission: Permission | None, use: Use | None = None
    ) -> WorkspaceView:
        """`use` is what its owner has stored, where the asker is that one and it is known already."""
        head = await self._records.get_revision(workspace.head)
        if head is None:
            raise NoWorkspace(workspace.id)  # deleted under us
        shares = await self._records.list_shares(workspace.id)
        mounted = sorted({one.sandbox for one in self._mounted.of_workspace(workspace.id)})
        of_group = GROUP_ID.match(workspace.owner) is not None
        name = await self._principals.name_of(workspace.owner) if permission is not None or of_group else None
        if permission is None:
            use = use or await self._allowance.use(workspace.owner)
        revision = await self.revision(head)
        problem = self._unrecorded.of(workspace.id)
        return WorkspaceView(workspace, permission, revision, tuple(mounted), tuple(shares), name, use, problem)

    async def revision(self, revision: Revision) -> RevisionView:
        return (await self.revisions([revision], revision.workspace))[0]

    async def revisions(self, revisions: Iterable[Revision], workspace_id: str) -> list[RevisionView]:
        """Of one workspace."""
        workspace = await self._records.get_workspace(workspace_id)
        owner = None if workspace is None else workspace.owner
        named: dict[str, list[str]] = defaultdict(list)
        for snapshot in await self._records.list_snapshots(workspace=workspace_id, limit=SNAPSHOTS_MAX):
            named[snapshot.revision].append(snapshot.id)
        return [RevisionView(one, tuple(sorted(named.get(one.id, ()))), owner) for one in revisions]
