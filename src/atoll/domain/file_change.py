"""FileChange: what happened to a file or folder that somebody watches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    """As watchers in the world of JavaScript call them, and one more."""

    ADD = "add"
    CHANGE = "change"
    UNLINK = "unlink"
    ADD_DIR = "addDir"
    UNLINK_DIR = "unlinkDir"
    OVERFLOW = "overflow"  # changes below were lost: whoever wants to know looks again


@dataclass(frozen=True, slots=True)
class FileChange:
    """One change; `path` is absolute in the sandbox. Several of one path within a moment are one."""

    kind: ChangeKind
    path: str
