"""Workspaces and who they are shared with, in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.workspace import Lineage, Permission, Revision, Share, Workspace
from atoll.records.locks import Lock
from atoll.records.prepared import Prepared
from atoll.records.schema import lineages, revisions, shares, snapshots, workspaces
from atoll.records.sql_chain import append_event
from atoll.records.sql_groups import hold_owner
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    lock_owner,
    not_swapped,
    owned_by,
    put,
    storable,
    swap,
    swap_values,
)
from atoll.records.workspace_rows import (
    lineage_row,
    revision_row,
    share_of,
    share_row,
    workspace_of,
    workspace_row,
)
from atoll.records.workspaces import SharedWorkspace, WorkspaceRecords

ADD_LINEAGE = Prepared(insert(lineages).inline())
ADD_REVISION = Prepared(insert(revisions).inline())
SWAP_WORKSPACE = swap(workspaces, {"created_at"})
_ADD_WORKSPACE = Prepared(insert(workspaces).inline())
_KEPT = workspaces.c.deleted_at.is_(None)
_COUNT_KEPT = Prepared(
    select(func.count().label("kept")).select_from(workspaces).where(workspaces.c.owner == bindparam("of"), _KEPT)
)
_GET = Prepared(select(workspaces).where(workspaces.c.id == bindparam("wanted")))
_FIND = Prepared(
    select(workspaces).where(workspaces.c.owner == bindparam("of"), workspaces.c.name == bindparam("wanted"), _KEPT)
)
_HOLD = Prepared(select(workspaces).where(workspaces.c.id == bindparam("wanted")).with_for_update())
_HOLD_LINEAGE = Prepared(select(lineages).where(lineages.c.id == bindparam("wanted")).with_for_update(read=True))
_PUT_SHARE = put(shares, "permission", "created_at")
_SHARE = shares.c.workspace == bindparam("shared"), shares.c.principal == bindparam("with_whom")
_GET_SHARE = Prepared(select(shares).where(*_SHARE))
_DELETE_SHARE = Prepared(delete(shares).where(*_SHARE))


class SqlWorkspaces(SqlStore, WorkspaceRecords):
    """See `WorkspaceRecords` for what each method does."""

    async def add_workspace(
        self,
        workspace: Workspace,
        revision: Revision,
        lineage: Lineage | None,
        event: Event,
        *,
        quota: int | None = None,
    ) -> None:
        row, first = storable(workspace_row(workspace)), storable(revision_row(revision))
        key = None if lineage is None else storable(lineage_row(lineage))
        happened = event_values(event)

        def add(connection: Connection) -> None:
            if quota is not None:
                lock_owner(connection, Lock.WORKSPACES, workspace.owner)
                kept = (_COUNT_KEPT.first(connection, {"of": workspace.owner}) or {"kept": 0})["kept"]
                if kept >= quota:
                    raise QuotaExceeded(f"workspace limit reached ({kept}/{quota})")
            hold_owner(connection, workspace.owner)
            try:
                if key is None:
                    hold_lineage(connection, workspace.lineage)
                else:
                    ADD_LINEAGE.run(connection, key)
                _ADD_WORKSPACE.run(connection, row)
                ADD_REVISION.run(connection, first)
            except IntegrityError as error:
                raise name_taken(workspace) from error
            append_event(connection, happened)

        await self._commit(add)

    async def swap_workspace(self, workspace: Workspace, event: Event | None) -> Workspace:
        after = replace(workspace, version=workspace.version + 1)
        row = swap_values(workspace_row(after), workspace.version)
        happened = None if event is None else event_values(event)

        def change(connection: Connection) -> None:
            try:
                swapped = SWAP_WORKSPACE.run(connection, row)
            except IntegrityError as error:
                raise name_taken(workspace) from error
            if swapped != 1:
                raise not_swapped(connection, workspaces, "workspace", workspace.id)
            if happened is not None:
                append_event(connection, happened)

        await self._commit(change)
        return after

    async def get_workspace(self, workspace_id: str) -> Workspace | None:
        return await self._one(_GET, workspace_of, wanted=workspace_id)

    async def find_workspace(self, owner: str, name: str) -> Workspace | None:
        return await self._one(_FIND, workspace_of, of=owner, wanted=name)

    async def list_workspaces(
        self,
        *,
        owner: str | tuple[str, ...] | None = None,
        deleted: bool | None = False,
        with_tree: bool = False,
        limit: int = 1000,
    ) -> list[Workspace]:
        query = select(workspaces).order_by(workspaces.c.created_at.desc(), workspaces.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(owned_by(workspaces, owner))
        if deleted is not None:
            query = query.where(~_KEPT if deleted else _KEPT)
        if with_tree:
            query = query.where(workspaces.c.tree_id.is_not(None))
        return await self._all(query, workspace_of)

    async def delete_workspace_records(self, workspace_id: str) -> None:
        def forget(connection: Connection) -> None:
            # Held: whoever adds something to it comes before this, or finds it gone.
            stored = _HOLD.first(connection, {"wanted": workspace_id})
            if stored is None:
                return
            if stored["deleted_at"] is None:
                raise Conflict(f"workspace {workspace_id} is not deleted")
            for table in (shares, snapshots, revisions):
                connection.execute(delete(table).where(table.c.workspace == workspace_id))
            connection.execute(delete(workspaces).where(workspaces.c.id == workspace_id))

        await self._commit(forget)

    # shares

    async def put_share(self, share: Share, event: Event) -> None:
        row, happened = storable(share_row(share)), event_values(event)

        def change(connection: Connection) -> None:
            hold_owner(connection, share.principal)
            try:
                _PUT_SHARE.run(connection, row)
            except IntegrityError as error:
                raise NotFound(f"workspace {share.workspace} does not exist") from error
            append_event(connection, happened)

        await self._commit(change)

    async def delete_share(self, workspace_id: str, principal: str, event: Event) -> bool:
        happened = event_values(event)

        def revoke(connection: Connection) -> bool:
            there = _DELETE_SHARE.run(connection, {"shared": workspace_id, "with_whom": principal}) == 1
            if there:
                append_event(connection, happened)
            return there

        return await self._commit(revoke)

    async def get_share(self, workspace_id: str, principal: str) -> Share | None:
        return await self._one(_GET_SHARE, share_of, shared=workspace_id, with_whom=principal)

    async def list_shares(self, workspace_id: str) -> list[Share]:
        return await self._all(
            select(shares).where(shares.c.workspace == workspace_id).order_by(shares.c.principal), share_of
        )

    async def list_shared_workspaces(self, principal: str, limit: int = 1000) -> list[SharedWorkspace]:
        query = (
            select(workspaces, shares.c.permission)
            .join(shares, shares.c.workspace == workspaces.c.id)
            .where(shares.c.principal == principal, workspaces.c.owner != principal, _KEPT)
            .order_by(workspaces.c.created_at.desc(), workspaces.c.id.desc())
            .limit(limit)
        )
        return await self._all(query, lambda row: SharedWorkspace(workspace_of(row), Permission(row["permission"])))


def hold_lineage(connection: Connection, lineage_id: str) -> str:
    """Keep it from being shredded until the transaction ends; its owner. NotFound when it is gone or was."""
    stored = _HOLD_LINEAGE.first(connection, {"wanted": lineage_id})
    if stored is None or stored["key"] is None:
        raise NotFound(f"lineage {lineage_id} does not exist, or was shredded")
    return stored["owner"]


def name_taken(workspace: Workspace) -> Conflict:
    return Conflict(f"there is a workspace {workspace.name!r} already")
