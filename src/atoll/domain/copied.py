"""What was copied from one folder of a sandbox into another: enough to take exactly that away again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopiedEntry:
    """One that was made: a folder (d), file (f) or link (l); `path` is relative, bytes that are no UTF-8 are lone
    surrogates in it."""

    kind: str
    path: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """A copy is complete: how much it made, and some of the paths that it left out."""

    files: int
    folders: int
    skipped: tuple[str, ...] = ()
