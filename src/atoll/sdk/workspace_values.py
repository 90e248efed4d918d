"""What calls about workspaces return: frozen values, read from the server's JSON here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from atoll.sdk.values import moment_of

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RevisionInfo:
    """One immutable state of a workspace; `number` counts from 1. Bytes are of file contents."""

    id: str
    number: int
    workspace: str = ""
    parent: str | None = None
    merged: str | None = None
    reason: str = ""
    message: str | None = None
    actor: str = ""
    created_at: datetime | None = None
    entries: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    state: str = "ready"
    tree: str = ""
    snapshots: tuple[str, ...] = ()
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """What the server says about a workspace at one moment. `permission` is this key's: owner, admin, write, read."""

    id: str
    name: str
    owner: str = ""
    owner_name: str | None = None  # what the owner's key is called, where that is not this key
    permission: str = "owner"
    description: str | None = None
    tags: tuple[str, ...] = ()
    head: RevisionInfo | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    quota_bytes: int = 0
    quota_inodes: int = 0
    automatic: bool = True
    forked_from: str | None = None
    mounted: tuple[str, ...] = ()  # ids of sandboxes
    unrecorded: str | None = None  # why no revision can be taken of what is in it now
    owner_stored_bytes: int | None = None  # in all workspaces of its owner; only told to that one
    owner_stored_bytes_max: int | None = None  # None: no limit, or not told
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)

    @property
    def full_name(self) -> str:
        """What this key calls it: its name, or `OWNER/NAME` when it is another's or a group's."""
        own = self.permission == "owner" and not self.owner.startswith("grp_")
        return self.name if own else f"{self.owner_name or self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A revision that somebody named and keeps."""

    id: str
    revision: str = ""
    name: str | None = None
    workspace: str = ""
    created_at: datetime | None = None
    entries: int = 0
    bytes: int = 0
    keep: bool = False
    own_key: bool = False
    raw: Json = field(default_factory=dict[str, Any], repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One path of a revision. `kind` is file, directory, symlink, hardlink or fifo; `size` is in bytes."""

    path: str
    kind: str
    size: int = 0
    mode: int = 0
    modified_at: datetime | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class PathChange:
    """What became of one path: added, changed, deleted, or renamed (from `renamed_from`). `text` is a unified diff."""

    path: str
    change: str
    kind: str = "file"
    renamed_from: str | None = None
    size_before: int | None = None
    size_after: int | None = None
    mode_before: int | None = None
    mode_after: int | None = None
    text: str | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class MergeConflictInfo:
    """A path that both sides changed: theirs stands at `kept` now."""

    path: str
    kept: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The revision that a merge made, and what it could not decide."""

    revision: RevisionInfo
    conflicts: tuple[MergeConflictInfo, ...] = ()
    changes: int = 0


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The revision that a restore made, how much it brought back, and the newest revision of what was there before. Not
    `changed`: all was so already, and no revision was made."""

    revision: RevisionInfo
    entries: int = 0
    bytes: int = 0
    before: RevisionInfo | None = None
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not what was stored."""

    message: str
    revision: str | None = None
    snapshot: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """How much was read and compared, and what of it is damaged."""

    revisions: int
    snapshots: int
    chunks: int
    bytes: int
    corrupt: tuple[Damage, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.corrupt


def revision_of(value: Json) -> RevisionInfo:
    return RevisionInfo(
        id=str(value["id"]),
        number=int(value.get("number") or 0),
        workspace=str(value.get("workspace") or ""),
        parent=value.get("parent"),
        merged=value.get("merged"),
        reason=str(value.get("reason") or ""),
        message=value.get("message"),
        actor=str(value.get("actor") or ""),
        created_at=moment_of(value.get("createdAt")),
        entries=int(value.get("entries") or 0),
        bytes=int(value.get("bytes") or 0),
        stored_bytes=int(value.get("storedBytes") or 0),
        state=str(value.get("state") or "ready"),
        tree=str(value.get("tree") or ""),
        snapshots=tuple(value.get("snapshots") or ()),
        raw=value,
    )


def workspace_of(value: Json) -> WorkspaceInfo:
    head, unrecorded = value.get("head"), value.get("unrecorded")
    return WorkspaceInfo(
        id=str(value["id"]),
        name=str(value.get("name") or ""),
        owner=str(value.get("owner") or ""),
        owner_name=value.get("ownerName"),
        permission=str(value.get("permission") or "owner"),
        description=value.get("description"),
        tags=tuple(value.get("tags") or ()),
        head=revision_of(cast(Json, head)) if isinstance(head, dict) else None,
        created_at=moment_of(value.get("createdAt")),
        updated_at=moment_of(value.get("updatedAt")),
        quota_bytes=int(value.get("quotaBytes") or 0),
        quota_inodes=int(value.get("quotaInodes") or 0),
        automatic=bool(value.get("automatic", True)),
        forked_from=value.get("forkedFrom"),
        mounted=tuple(value.get("mounted") or ()),
        unrecorded=str(cast(Json, unrecorded)["message"]) if isinstance(unrecorded, dict) else None,
        owner_stored_bytes=value.get("ownerStoredBytes"),
        owner_stored_bytes_max=value.get("ownerStoredBytesMax"),
        raw=value,
    )


def snapshot_of(value: Json) -> SnapshotInfo:
    return SnapshotInfo(
        id=str(value["id"]),
        revision=str(value.get("revision") or ""),
        name=value.get("name"),
        workspace=str(value.get("workspace") or ""),
        created_at=moment_of(value.get("createdAt")),
        entries=int(value.get("entries") or 0),
        bytes=int(value.get("bytes") or 0),
        keep=bool(value.get("keep")),
        own_key=bool(value.get("ownKey")),
        raw=value,
    )


def tree_entry_of(value: Json) -> TreeEntry:
    return TreeEntry(
        path=str(value["path"]),
        kind=str(value.get("kind") or "file"),
        size=int(value.get("size") or 0),
        mode=int(value.get("mode") or 0),
        modified_at=moment_of(value.get("modifiedAt")),
        target=value.get("target"),
    )


def change_of(value: Json) -> PathChange:
    before, after = (cast(Json, value.get(side) or {}) for side in ("before", "after"))
    return PathChange(
        path=str(value["path"]),
        change=str(value.get("change") or "changed"),
        kind=str(value.get("kind") or "file"),
        renamed_from=value.get("from"),
        size_before=before.get("size"),
        size_after=after.get("size"),
        mode_before=before.get("mode"),
        mode_after=after.get("mode"),
        text=value.get("text"),
        binary=bool(value.get("binary")),
    )


def merge_of(value: Json) -> MergeResult:
    conflicts = cast("list[Json]", value.get("conflicts") or [])
    return MergeResult(
        revision=revision_of(value["revision"]),
        conflicts=tuple(
            MergeConflictInfo(str(one["path"]), str(one.get("kept") or ""), str(one.get("reason") or ""))
            for one in conflicts
        ),
        changes=int(value.get("changes") or 0),
    )


def restore_of(value: Json) -> RestoreResult:
    restored = cast(Json, value.get("restored") or {})
    return RestoreResult(
        revision=revision_of(value["revision"]),
        entries=int(restored.get("entries") or 0),
        bytes=int(restored.get("bytes") or 0),
        before=None if value.get("before") is None else revision_of(value["before"]),
        changed=bool(value.get("changed", True)),
    )


def verification_of(value: Json) -> Verification:
    corrupt = cast("list[Json]", value.get("corrupt") or [])
    return Verification(
        revisions=int(value.get("revisions") or 0),
        snapshots=int(value.get("snapshots") or 0),
        chunks=int(value.get("chunks") or 0),
        bytes=int(value.get("bytes") or 0),
        corrupt=tuple(
            Damage(str(one.get("message") or ""), one.get("revision"), one.get("snapshot"), one.get("path"))
            for one in corrupt
        ),
    )
