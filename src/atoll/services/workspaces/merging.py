"""Merging: what a fork (or any other workspace) changed since both were one comes into this workspace too."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from atoll.domain import crash
from atoll.domain.errors import InvalidInput, StaleVersion
from atoll.domain.principal import Principal
from atoll.domain.tree_changes import changes
from atoll.domain.tree_merge import merge
from atoll.domain.workspace import Permission, Reason, Revision, Workspace
from atoll.records.base import Records
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.copying import Copying
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.refs import Refs, Resolved
from atoll.services.workspaces.restoring import Restoring
from atoll.services.workspaces.revising import Revising
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.viewing import Viewing
from atoll.services.workspaces.views import KeptBoth, Merged

LISTED_MAX = 1_000_000


class Merging:
    """Three-way merges of workspaces."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        refs: Refs,
        manifests: Manifests,
        copying: Copying,
        revising: Revising,
        restoring: Restoring,
        viewing: Viewing,
        locks: Locks,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._access = access
        self._refs = refs
        self._manifests = manifests
        self._copying = copying
        self._revising = revising
        self._restoring = restoring
        self._viewing = viewing
        self._locks = locks
        self._limits = limits

    async def merge(
        self, principal: Principal, ref: str, source: str, revision: str | None = None, base: str | None = None
    ) -> Merged:
        """Take over what `source` (its state now, or that revision) changed since the newest revision that both come
        from, or since `base`, a revision of the source. Needs `write`, and `read` on the source.

        Where both sides changed a path theirs is kept beside ours as `name.conflict-r<number>`, and told.
        InvalidInput (`base`) when they have no revision in common and none was named.
        """
        into = (await self._access.find(principal, ref, Permission.WRITE)).workspace
        from_ = (await self._access.find(principal, source, Permission.READ)).workspace
        if revision is None:  # before our own lock: nobody holds two
            head = await self._revising.take(from_.id, Reason.ASKED, principal.id)
            theirs = Resolved(head, head.lineage, head.tree)
        else:
            theirs = (await self._refs.resolve(from_, revision)).readable()
        named = None if base is None else (await self._refs.resolve(from_, base)).readable()
        async with self._locks.hold(into.id):
            for _ in range(self._limits.take_tries):
                workspace = await self._access.current(into.id)
                with suppress(StaleVersion):
                    return await self._merge(workspace, from_, theirs, named, principal.id)
        raise StaleVersion()

    async def _merge(
        self, workspace: Workspace, from_: Workspace, theirs: Resolved, named: Resolved | None, actor: str
    ) -> Merged:
        taken = await self._revising.take_held(workspace, Reason.ASKED, actor)
        common = named or await self._common(taken.head, theirs.revision)
        before = await self._manifests.load(taken.head.lineage, taken.head.tree)
        merged = await asyncio.to_thread(
            merge,
            await self._manifests.load(common.lineage, common.tree),
            before,
            await self._manifests.load(theirs.lineage, theirs.tree),
            f"r{theirs.revision.number}",
        )
        came = sum(1 for _ in changes(before, merged.entries))
        stored = await self._copying.entries(workspace.lineage, theirs.lineage, merged.entries)
        crash.point("workspaces.merge.stored")
        message = f"{from_.name}@r{theirs.revision.number}"
        head = await self._restoring.become_entries(
            taken, merged.entries, stored, Reason.MERGE, actor, message, merged=theirs.revision.id
        )
        conflicts = [KeptBoth(one.path, one.kept, one.reason) for one in merged.conflicts]
        return Merged(await self._viewing.revision(head), conflicts, came)

    async def _common(self, ours: Revision, theirs: Revision) -> Resolved:
        """The newest revision that both come from and that is kept still."""
        one, other = await self._ancestry(ours), await self._ancestry(theirs)
        candidates: list[Revision] = []
        for workspace in one.keys() & other.keys():
            number = min(one[workspace], other[workspace])
            older = await self._records.list_revisions(workspace=workspace, before=number + 1, limit=1)
            candidates += older
        if not candidates:
            raise InvalidInput("base: the two workspaces have no revision in common: name one", field="base")
        newest = max(candidates, key=lambda revision: revision.created_at)
        return Resolved(newest, newest.lineage, newest.tree).readable()

    async def _ancestry(self, revision: Revision) -> dict[str, int]:
        """By workspace the newest number among a revision's ancestors and itself: all before it are ancestors too."""
        newest: dict[str, int] = {}
        waiting = [revision]
        while waiting:
            one = waiting.pop()
            known = newest.get(one.workspace, 0)
            if one.number <= known:
                continue
            newest[one.workspace] = one.number
            listed = await self._records.list_revisions(
                workspace=one.workspace, before=one.number + 1, limit=LISTED_MAX
            )
            others = {parent for old in listed if old.number > known for parent in (old.parent, old.merged) if parent}
            for parent in others - {old.id for old in listed}:
                found = await self._records.get_revision(parent)
                if found is not None and found.workspace != one.workspace:
                    waiting.append(found)
        return newest
