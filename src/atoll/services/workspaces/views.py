"""What the workspaces service answers with: records put together; the surfaces turn them into their wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from atoll.domain.process import RunResult
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.workspace import Permission, Revision, Share, Workspace
from atoll.services.workspaces.storage.allowance import Use
from atoll.services.workspaces.unrecorded import Problem


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision, the ids of the snapshots that keep it, and whose it is: only that principal may know its
    `stored_bytes`, which tell what the other workspaces of the lineage had stored before."""

    revision: Revision
    snapshots: tuple[str, ...] = ()
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    """A workspace as somebody sees it. `mounted` are the ids of live sandboxes."""

    workspace: Workspace
    permission: Permission | None  # None: the asker owns it
    head: RevisionView
    mounted: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    owner_name: str | None = None  # of the owner's key, where that is not the asker's
    use: Use | None = None  # of the asker, where that is the owner: in all workspaces of theirs
    unrecorded: Problem | None = None  # why no revision can be taken of what is there

    @property
    def updated_at(self) -> datetime:
        """When its files or what is told of it changed last."""
        return max(self.workspace.updated_at, self.head.revision.created_at)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to become of a workspace; None leaves it as it is."""

    name: str | None = None
    description: str | None = None  # "" takes it away
    tags: tuple[str, ...] | None = None
    quota_bytes: int | None = None
    quota_inodes: int | None = None
    automatic: bool | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries below a path, in order; `next` is where to go on, None at the end."""

    revision: Revision
    entries: list[Entry]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs between two revisions. `from_` is where a renamed one was."""

    path: bytes
    change: Literal["added", "changed", "deleted", "renamed"]
    kind: EntryKind
    from_: bytes | None = None
    before: Entry | None = None
    after: Entry | None = None
    text: str | None = None  # a unified diff
    binary: bool = False  # there is none because its contents are no text


@dataclass(frozen=True, slots=True)
class Diff:
    """Changes in order of their paths; `truncated` when there are more than an answer holds."""

    from_: Revision
    to: Revision
    changes: list[Change]
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """The revision that a restore made and that is the head, and what was written for it; `before` is the newest one of
    what was there. The same one twice: nothing had to be changed."""

    revision: RevisionView
    entries: int
    bytes: int
    before: RevisionView

    @property
    def changed(self) -> bool:
        return self.revision.revision.id != self.before.revision.id


@dataclass(frozen=True, slots=True)
class KeptBoth:
    """A path that both sides of a merge changed: ours stays at `path`, theirs stands at `kept`."""

    path: bytes
    kept: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Merged:
    """The revision that a merge made; `changes` counts the paths that came from the other side."""

    revision: RevisionView
    conflicts: list[KeptBoth]
    changes: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not what was stored."""

    message: str
    revision: str | None = None
    snapshot: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification read, and what it found damaged."""

    revisions: int
    snapshots: int
    chunks: int
    bytes: int
    corrupt: list[Damage]


class SentChunk(NamedTuple):
    """A chunk on its way: `data` is zstd of `size` bytes; empty in an answer when there is no such chunk."""

    id: bytes
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ran in the sandbox of a workspace."""

    workspace: Workspace
    result: RunResult
