"""Forks: a workspace that begins with the files of another. No byte moves between workspaces of one owner.

A fork that somebody else makes gets a lineage of its own, so that neither side can ask for the other's chunks.
"""

from __future__ import annotations

from atoll.domain import crash
from atoll.domain.ids import new_id, new_workspace_id
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.domain.workspace import Permission, Reason, Revision, Workspace
from atoll.records.base import Records
from atoll.services.identity.group_names import group_meant
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.adding import Adding
from atoll.services.workspaces.copying import Copying
from atoll.services.workspaces.quotas import fitting
from atoll.services.workspaces.refs import Refs, Resolved
from atoll.services.workspaces.revising import Revising, Stored
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.viewing import Viewing
from atoll.services.workspaces.views import WorkspaceView


class Forks:
    """Makes forks."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        refs: Refs,
        keys: LineageKeys,
        copying: Copying,
        revising: Revising,
        adding: Adding,
        viewing: Viewing,
        locks: Locks,
    ) -> None:
        self._records = records
        self._access = access
        self._refs = refs
        self._keys = keys
        self._copying = copying
        self._revising = revising
        self._adding = adding
        self._viewing = viewing
        self._locks = locks

    async def fork(
        self,
        principal: Principal,
        ref: str,
        name: str,
        revision: str | None = None,
        group: str | None = None,
        *,
        tags: tuple[str, ...] | None = None,
    ) -> WorkspaceView:
        """A new workspace, one's own or a group's, with that revision's files (None: as they are now), and with `tags`
        (None: those of its source). Needs `write`, and of a collaborator `read`. NotFound for the revision, Corrupt,
        Conflict for the name, QuotaExceeded.
        """
        owner = principal.owning(Scope.WRITE, await group_meant(self._records, principal, group))
        found = await self._access.find(principal, ref, Permission.READ)
        # Held, so that a deletion of the source cannot shred the key that both will have.
        async with self._locks.hold(found.workspace.id):
            source = await self._access.current(found.workspace.id)
            if revision is None:
                source, head = await self._revising.take_held(source, Reason.ASKED, principal.id)
                wanted = Resolved(head, head.lineage, head.tree)
            else:
                wanted = (await self._refs.resolve(source, revision)).readable()
            fork = await self._made(principal, owner, source, wanted, name, tags)
        return await self._viewing.workspace(*await self._access.find(principal, fork.id, Permission.READ))

    async def _made(
        self,
        principal: Principal,
        owner: str,
        source: Workspace,
        wanted: Resolved,
        name: str,
        tags: tuple[str, ...] | None,
    ) -> Workspace:
        now = self._access.clock()
        fork = Workspace(
            id=new_workspace_id(),
            owner=owner,
            name=name,
            lineage=source.lineage if source.owner == owner else new_id("lin"),
            head=new_id("rev"),
            created_at=now,
            updated_at=now,
            description=source.description,
            tags=source.tags if tags is None else tags,
            quota=fitting(source.quota),
            forked_from=wanted.revision.id,
            automatic=source.automatic,
        )
        await self._adding.check(fork)
        stored = await self._stored(fork, wanted)
        crash.point("workspaces.fork.stored")
        first = Revision(
            id=fork.head,
            workspace=fork.id,
            number=1,
            lineage=fork.lineage,
            tree=stored.tree,
            parent=wanted.revision.id,
            reason=Reason.FORK,
            actor=principal.id,
            created_at=now,
            entries=stored.entries,
            bytes=stored.bytes,
            stored_bytes=stored.stored_bytes,
            message=f"{source.name}@r{wanted.revision.number}",
        )
        await self._adding.add(principal, fork, first, "workspace.forked")
        crash.point("workspaces.fork.recorded")
        return fork

    async def _stored(self, fork: Workspace, wanted: Resolved) -> Stored:
        if fork.lineage == wanted.lineage:
            return Stored(wanted.tree, wanted.revision.entries, wanted.revision.bytes, 0)
        if await self._records.get_lineage(fork.lineage) is None:
            await self._copying.check_allowance(fork.owner)
            await self._records.add_lineage(await self._keys.new(fork.lineage, fork.owner))
        return await self._copying.into(fork.lineage, wanted)
