"""Revisions and snapshots in SQL: a part of `SqlRecords`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.event import Event
from atoll.domain.workspace import Revision, RevisionState, Snapshot, Workspace
from atoll.records.prepared import Prepared
from atoll.records.schema import revisions, snapshots, workspaces
from atoll.records.sql_chain import append_event
from atoll.records.sql_store import (
    SqlStore,
    event_values,
    not_swapped,
    pieces,
    storable,
    swap_values,
)
from atoll.records.sql_workspaces import ADD_REVISION, SWAP_WORKSPACE, hold_lineage, name_taken
from atoll.records.workspace_rows import (
    revision_of,
    revision_row,
    snapshot_of,
    snapshot_row,
    workspace_row,
)
from atoll.records.workspaces import WorkspaceRecords

_GET = Prepared(select(revisions).where(revisions.c.id == bindparam("wanted")))
_FIND = Prepared(
    select(revisions).where(revisions.c.workspace == bindparam("of"), revisions.c.number == bindparam("wanted"))
)
_HOLD = Prepared(
    select(revisions.c.id).where(revisions.c.id == bindparam("wanted")).with_for_update(read=True, key_share=True)
)
_SET_STATE = Prepared(update(revisions).where(revisions.c.id == bindparam("of")).values(state=bindparam("new_state")))
_IS_HEAD = exists().where(workspaces.c.id == revisions.c.workspace, workspaces.c.head == revisions.c.id)
_IS_KEPT = exists().where(snapshots.c.revision == revisions.c.id)
_ADD_SNAPSHOT = Prepared(insert(snapshots).inline())
_SNAPSHOT = snapshots.c.owner == bindparam("of"), snapshots.c.id == bindparam("wanted")
_FIND_SNAPSHOT = Prepared(select(snapshots).where(*_SNAPSHOT))
_DELETE_SNAPSHOT = Prepared(delete(snapshots).where(*_SNAPSHOT))


class SqlRevisions(SqlStore, WorkspaceRecords):
    """See `WorkspaceRecords` for what each method does."""

    async def add_revision(self, revision: Revision, workspace: Workspace, event: Event) -> Workspace:
        after = replace(workspace, head=revision.id, version=workspace.version + 1)
        row = swap_values(workspace_row(after), workspace.version)
        new, happened = storable(revision_row(revision)), event_values(event)

        def add(connection: Connection) -> None:
            hold_lineage(connection, revision.lineage)
            try:
                swapped = SWAP_WORKSPACE.run(connection, row)
            except IntegrityError as error:
                raise name_taken(workspace) from error
            if swapped != 1:
                raise not_swapped(connection, workspaces, "workspace", workspace.id)
            try:
                ADD_REVISION.run(connection, new)
            except IntegrityError as error:
                raise Conflict(f"workspace {workspace.id} has a revision {revision.number} already") from error
            append_event(connection, happened)

        await self._commit(add)
        return after

    async def get_revision(self, revision_id: str) -> Revision | None:
        return await self._one(_GET, revision_of, wanted=revision_id)

    async def find_revision(self, workspace_id: str, number: int) -> Revision | None:
        return await self._one(_FIND, revision_of, of=workspace_id, wanted=number)

    async def list_revisions(
        self, *, workspace: str | None = None, lineage: str | None = None, before: int | None = None, limit: int = 1000
    ) -> list[Revision]:
        query = select(revisions).order_by(revisions.c.number.desc(), revisions.c.id.desc())
        if workspace is not None:
            query = query.where(revisions.c.workspace == workspace)
        if lineage is not None:
            query = query.where(revisions.c.lineage == lineage)
        if before is not None:
            query = query.where(revisions.c.number < before)

        def read(connection: Connection) -> list[Revision]:
            found = [revision_of(row) for row in connection.execute(query.limit(limit)).mappings()]
            if len(found) < limit or not found or workspace is not None:
                return found
            last = found[-1]
            rest = query.where(revisions.c.number == last.number, revisions.c.id < last.id)
            return found + [revision_of(row) for row in connection.execute(rest).mappings()]

        return await self._database.read(read)

    async def set_revision_state(self, revision_id: str, state: RevisionState, event: Event) -> None:
        happened = event_values(event)

        def change(connection: Connection) -> None:
            if _SET_STATE.run(connection, {"of": revision_id, "new_state": state.value}) != 1:
                raise NotFound(f"revision {revision_id} does not exist")
            append_event(connection, happened)

        await self._commit(change)

    async def delete_revisions(self, revision_ids: Collection[str], event: Event) -> int:
        happened = event_values(event)

        def forget(connection: Connection) -> int:
            gone = 0
            for some in pieces(sorted(revision_ids)):
                these = revisions.c.id.in_(some)
                # Held first: a snapshot of one of them that is being made is seen by the delete, or finds it gone.
                connection.execute(select(revisions.c.id).where(these).with_for_update())
                gone += connection.execute(delete(revisions).where(these, ~_IS_HEAD, ~_IS_KEPT)).rowcount
            if gone:
                append_event(connection, happened)
            return gone

        return await self._commit(forget)

    # snapshots

    async def add_snapshot(self, snapshot: Snapshot, event: Event) -> None:
        row, happened = storable(snapshot_row(snapshot)), event_values(event)

        def add(connection: Connection) -> None:
            if _HOLD.first(connection, {"wanted": snapshot.revision}) is None:
                raise NotFound(f"revision {snapshot.revision} does not exist")
            hold_lineage(connection, snapshot.lineage)
            try:
                _ADD_SNAPSHOT.run(connection, row)
            except IntegrityError as error:
                raise Conflict(f"there is a snapshot {snapshot.name or snapshot.id!r} already") from error
            append_event(connection, happened)

        await self._commit(add)

    async def find_snapshot(self, owner: str, snapshot_id: str) -> Snapshot | None:
        return await self._one(_FIND_SNAPSHOT, snapshot_of, of=owner, wanted=snapshot_id)

    async def list_snapshots(
        self, *, owner: str | None = None, workspace: str | None = None, lineage: str | None = None, limit: int = 1000
    ) -> list[Snapshot]:
        query = select(snapshots).order_by(snapshots.c.created_at.desc(), snapshots.c.id.desc()).limit(limit)
        for column, wanted in ((snapshots.c.owner, owner), (snapshots.c.workspace, workspace)):
            if wanted is not None:
                query = query.where(column == wanted)
        if lineage is not None:
            query = query.where(snapshots.c.lineage == lineage)
        return await self._all(query, snapshot_of)

    async def delete_snapshot(self, owner: str, snapshot_id: str, event: Event) -> bool:
        happened = event_values(event)

        def remove(connection: Connection) -> bool:
            there = _DELETE_SNAPSHOT.run(connection, {"of": owner, "wanted": snapshot_id}) == 1
            if there:
                append_event(connection, happened)
            return there

        return await self._commit(remove)
