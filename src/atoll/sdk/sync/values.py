"""What a sync is asked for and what it reports; `Workspace.sync`, `push` and `pull` take and return these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from atoll.sdk.workspace_values import RevisionInfo


class Direction(StrEnum):
    """Which side follows the other."""

    BOTH = "both"
    PUSH = "push"  # the workspace follows the folder
    PULL = "pull"  # the folder follows the workspace


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How to go about it."""

    direction: Direction = Direction.BOTH
    delete: bool = False
    exclude: tuple[str, ...] = ()  # patterns as in .gitignore, for both sides
    home: bool = False  # the workspace's .home too
    ignore_files: bool = True  # .gitignore and .atollignore count
    dry_run: bool = False
    message: str | None = None  # of the revision


@dataclass(frozen=True, slots=True)
class SyncedPath:
    """One path that a side got: `change` is added, changed, deleted or renamed (from `renamed_from`)."""

    path: str
    change: str
    renamed_from: str | None = None


@dataclass(frozen=True, slots=True)
class SyncConflict:
    """A path that both sides changed. Both versions are kept: the workspace's under the path `kept`."""

    path: str
    kept: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A path of the folder that cannot travel, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did, or would do when it is a dry run. Bytes are what travelled, compressed."""

    revision: RevisionInfo  # of the workspace now
    sent: tuple[SyncedPath, ...] = ()
    received: tuple[SyncedPath, ...] = ()
    conflicts: tuple[SyncConflict, ...] = ()
    not_deleted: tuple[str, ...] = ()  # gone on one side only; `delete` would carry that over
    left_out: tuple[LeftOut, ...] = ()
    bytes_sent: int = 0
    bytes_received: int = 0
    dry_run: bool = False

    @property
    def changed(self) -> bool:
        return bool(self.sent or self.received)


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a transfer is, in bytes of file contents. `phase` is "upload" or "download"."""

    phase: str
    done: int
    total: int


OnProgress = Callable[[SyncProgress], None]
