"""What `/v1/workspaces` answers: a plain builder for each object and a model for the document, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from atoll.domain.tree import Entry, text
from atoll.domain.workspace import Share, Snapshot, Workspace
from atoll.services.workspaces.views import (
    Change,
    Damage,
    Diff,
    Listing,
    Merged,
    Report,
    Restored,
    RevisionView,
    WorkspaceView,
)
from atoll.surfaces.models import AnswerModel
from atoll.surfaces.moments import moment_of_ns

Json = dict[str, Any]
Kind = Literal["file", "directory", "symlink", "hardlink", "fifo"]


class RevisionAnswer(AnswerModel):
    """A revision."""

    id: str
    workspace: str
    number: int
    tree: str
    parent: str | None
    merged: str | None = None
    reason: str
    message: str | None = None
    actor: str
    createdAt: datetime
    entries: int
    bytes: int
    storedBytes: int | None = None
    state: Literal["ready", "corrupt"]
    snapshots: list[str] | None = None


class RevisionsAnswer(AnswerModel):
    revisions: list[RevisionAnswer]


class RevisionOnlyAnswer(AnswerModel):
    revision: RevisionAnswer


class UnrecordedAnswer(AnswerModel):
    """Why no revision can be taken of what a workspace holds now."""

    since: datetime
    message: str


class WorkspaceAnswer(AnswerModel):
    """A workspace."""

    id: str = Field(pattern=r"^ws_[0-9a-f]{32}$")
    name: str
    description: str | None
    tags: list[str]
    owner: str
    ownerName: str | None = None
    permission: Literal["owner", "admin", "write", "read"]
    createdAt: datetime
    updatedAt: datetime
    head: RevisionAnswer
    quotaBytes: int
    quotaInodes: int
    automatic: bool
    forkedFrom: str | None = None
    lineage: str
    mounted: list[str]
    unrecorded: UnrecordedAnswer | None = None
    ownerStoredBytes: int | None = None
    ownerStoredBytesMax: int | None = None


class WorkspacesAnswer(AnswerModel):
    workspaces: list[WorkspaceAnswer]


class DeletedAnswer(AnswerModel):
    deleted: bool


class TreeEntryAnswer(AnswerModel):
    path: str
    kind: Kind
    size: int
    mode: int
    modifiedAt: datetime
    target: str | None = None


class ListingAnswer(AnswerModel):
    revision: str
    entries: list[TreeEntryAnswer]
    next: str | None = None


class SideAnswer(AnswerModel):
    size: int
    mode: int


class ChangeAnswer(AnswerModel):
    path: str
    change: Literal["added", "changed", "deleted", "renamed"]
    kind: Kind
    from_: str | None = Field(None, alias="from")
    before: SideAnswer | None = None
    after: SideAnswer | None = None
    text: str | None = None
    binary: bool | None = None


class DiffAnswer(AnswerModel):
    from_: str = Field(alias="from")
    to: str
    changes: list[ChangeAnswer]
    truncated: bool


class WrittenAnswer(AnswerModel):
    entries: int
    bytes: int


class UndoneAnswer(AnswerModel):
    revision: RevisionAnswer
    before: RevisionAnswer
    changed: bool


class RestoredAnswer(UndoneAnswer):
    restored: WrittenAnswer


class ConflictAnswer(AnswerModel):
    path: str
    kept: str
    reason: str


class MergedAnswer(AnswerModel):
    revision: RevisionAnswer
    conflicts: list[ConflictAnswer]
    changes: int


class SnapshotAnswer(AnswerModel):
    """A snapshot."""

    id: str
    name: str | None = None
    workspace: str
    revision: str
    createdAt: datetime
    entries: int
    bytes: int
    keep: bool
    ownKey: bool


class SnapshotsAnswer(AnswerModel):
    snapshots: list[SnapshotAnswer]


class DamageAnswer(AnswerModel):
    revision: str | None = None
    snapshot: str | None = None
    path: str | None = None
    message: str


class ReportAnswer(AnswerModel):
    revisions: int
    snapshots: int
    chunks: int
    bytes: int
    corrupt: list[DamageAnswer]


class CollaboratorsAnswer(AnswerModel):
    collaborators: dict[str, Literal["read", "write", "admin"]]


class RevokedAnswer(AnswerModel):
    revoked: bool


class StoredAnswer(AnswerModel):
    stored: int
    bytes: int


def workspace(view: WorkspaceView) -> Json:
    one = view.workspace
    return {
        "id": one.id,
        "name": one.name,
        "description": one.description,
        "tags": list(one.tags),
        "owner": one.owner,
        "permission": str(view.permission or "owner"),
        "createdAt": one.created_at,
        "updatedAt": view.updated_at,
        "head": revision(view.head, one.owner if view.permission is None else None),
        "quotaBytes": one.quota.bytes,
        "quotaInodes": one.quota.inodes,
        "automatic": one.automatic,
        "lineage": one.lineage,
        "mounted": list(view.mounted),
    } | _present(
        {
            "ownerName": view.owner_name,
            "forkedFrom": one.forked_from,
            "unrecorded": _unrecorded(view),
            "ownerStoredBytes": None if view.use is None else view.use.bytes,
            "ownerStoredBytesMax": None if view.use is None else view.use.most,
        }
    )


def _unrecorded(view: WorkspaceView) -> Json | None:
    problem = view.unrecorded
    return None if problem is None else {"since": problem.since, "message": problem.message}


def revision(view: RevisionView, asker: str | None) -> Json:
    one = view.revision
    own = view.owner is not None and view.owner == asker
    return {
        "id": one.id,
        "workspace": one.workspace,
        "number": one.number,
        "tree": one.tree,
        "parent": one.parent,
        "reason": str(one.reason),
        "actor": one.actor,
        "createdAt": one.created_at,
        "entries": one.entries,
        "bytes": one.bytes,
        "state": str(one.state),
    } | _present(
        {
            "merged": one.merged,
            "message": one.message,
            "storedBytes": one.stored_bytes if own else None,
            "snapshots": list(view.snapshots) or None,
        }
    )


def snapshot(one: Snapshot, of: Workspace) -> Json:
    return {
        "id": one.id,
        "workspace": one.workspace,
        "revision": one.revision,
        "createdAt": one.created_at,
        "entries": one.entries,
        "bytes": one.bytes,
        "keep": one.kept,
        "ownKey": one.lineage != of.lineage,
    } | _present({"name": one.name})


def entry(one: Entry) -> Json:
    return {
        "path": text(one.path),
        "kind": one.kind.name.lower(),
        "size": one.size,
        "mode": one.mode,
        "modifiedAt": moment_of_ns(one.mtime_ns),
    } | _present({"target": text(one.target) if one.target else None})


def listing(found: Listing) -> Json:
    answer: Json = {"revision": found.revision.id, "entries": [entry(one) for one in found.entries]}
    return answer | _present({"next": found.next})


def change(one: Change) -> Json:
    answer: Json = {"path": text(one.path), "change": one.change, "kind": one.kind.name.lower()}
    return answer | _present(
        {
            "from": None if one.from_ is None else text(one.from_),
            "before": _side(one.before),
            "after": _side(one.after),
            "text": one.text,
            "binary": one.binary or None,
        }
    )


def diff(found: Diff) -> Json:
    return {
        "from": found.from_.id,
        "to": found.to.id,
        "changes": [change(one) for one in found.changes],
        "truncated": found.truncated,
    }


def restored(result: Restored, asker: str) -> Json:
    head, before = (revision(one, asker) for one in (result.revision, result.before))
    return {"revision": head, "before": before, "changed": result.changed}


def merged(result: Merged, asker: str) -> Json:
    conflicts = [{"path": text(one.path), "kept": text(one.kept), "reason": one.reason} for one in result.conflicts]
    return {"revision": revision(result.revision, asker), "conflicts": conflicts, "changes": result.changes}


def report(found: Report) -> Json:
    return {
        "revisions": found.revisions,
        "snapshots": found.snapshots,
        "chunks": found.chunks,
        "bytes": found.bytes,
        "corrupt": [damage(one) for one in found.corrupt],
    }


def damage(one: Damage) -> Json:
    return {"message": one.message} | _present({"revision": one.revision, "snapshot": one.snapshot, "path": one.path})


def collaborators(found: Iterable[Share]) -> Json:
    return {"collaborators": {share.principal: str(share.permission) for share in found}}


def _side(one: Entry | None) -> Json | None:
    return None if one is None else {"size": one.size, "mode": one.mode}


def _present(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
