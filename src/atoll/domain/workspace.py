"""Workspace: a file tree that outlives sandboxes, the revisions that it went through, and who may touch it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

MOUNT_POINT = "/workspace"
DEFAULT_NAME = "default"  # the workspace that `/snapshot/*` keeps


class Permission(StrEnum):
    """What a collaborator may do with a workspace; each includes those before it."""

    READ = "read"  # look, pull, mount read-only
    WRITE = "write"  # change, push, mount, run commands in it, restore, snapshot
    ADMIN = "admin"  # share it with others and take that back; only the owner deletes

    def includes(self, other: Permission) -> bool:
        order = tuple(Permission)
        return order.index(self) >= order.index(other)


class Reason(StrEnum):
    """Why a revision was taken."""

    CREATED = "created"  # the empty tree that a workspace begins with
    ASKED = "asked"
    PROCESS = "process"  # a process that changed files has ended
    STOP = "stop"  # a sandbox that had it mounted has ended
    SUSPEND = "suspend"
    DAILY = "daily"
    SYNC = "sync"  # pushed by a client
    IMPORT = "import"
    BEFORE_RESTORE = "before_restore"  # what a restore would have lost
    RESTORE = "restore"
    UNDO = "undo"
    FORK = "fork"
    MERGE = "merge"


class RevisionState(StrEnum):
    READY = "ready"
    CORRUPT = "corrupt"  # verification found a byte that is not what was stored; it cannot be restored


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of a workspace's working tree."""

    bytes: int = 10 * 2**30
    inodes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Lineage:
    """A workspace with its forks: they share chunks and one data key. `key` is wrapped by the vault; None: shredded."""

    id: str
    owner: str  # of all of them: whose stored bytes its packs are
    vault: str  # the name of the vault that wrapped it
    key: bytes | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Workspace:
    """The record of one workspace. `head` is the id of its newest revision; `tree_id` names its working tree in the
    runtime `runtime`, both None while there is none."""

    id: str
    owner: str  # the id of the principal that made it
    name: str
    lineage: str
    head: str
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    tags: tuple[str, ...] = ()
    quota: Quota = Quota()
    runtime: str | None = None
    tree_id: str | None = None
    sandbox_id: str | None = None  # of the Agent Workspace API: where its `exec` runs
    sandbox_config: str | None = None  # and what was asked for that sandbox, sealed: its environment may hold secrets
    forked_from: str | None = None  # a revision's id
    automatic: bool = True  # revisions are taken after processes and daily
    deleted_at: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable state of a workspace. `tree` is the chunk id of its root, in hex; `number` counts from 1."""

    id: str
    workspace: str
    number: int
    lineage: str  # whose key its tree is encrypted under
    tree: str
    parent: str | None
    reason: Reason
    actor: str
    created_at: datetime
    entries: int
    bytes: int
    stored_bytes: int = 0  # what it added to the store, compressed
    message: str | None = None
    merged: str | None = None  # the other parent of a merge
    state: RevisionState = RevisionState.READY


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A revision that somebody named and keeps. Ids are `snap_YYYY_MM_DD_HHMMSS`, `_2`, `_3` ... within a second."""

    id: str
    workspace: str
    owner: str  # of the workspace; ids are unique per owner
    revision: str
    lineage: str  # its own where it was given a key of its own, else the workspace's
    tree: str
    created_at: datetime
    name: str | None = None
    entries: int = 0
    bytes: int = 0
    kept: bool = False  # retention never removes it
    metadata: str = ""  # JSON of its maker's own; empty: none


@dataclass(frozen=True, slots=True)
class Share:
    """A collaborator of a workspace."""

    workspace: str
    principal: str
    permission: Permission
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Pack:
    """One stored object that holds many chunks of one lineage."""

    id: str
    lineage: str
    bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """Where a chunk lies: `offset` and `stored_bytes` within its pack; `bytes` is its size as it was given."""

    id: bytes
    pack: str
    offset: int
    stored_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class WorkspaceMount:
    """A workspace in a sandbox. `tree_id` is filled in by the workspaces service before the runtime sees it."""

    workspace: str
    path: str = MOUNT_POINT
    read_only: bool = False
    tree_id: str = ""
