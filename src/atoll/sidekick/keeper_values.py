"""What a keeper's client gives and takes: paths as scans and reads tell them, and the steps of `apply`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from atoll.domain.tree import Entry


class Seen(NamedTuple):
    """A path as a scan sees it. `stamp` (device-free: inode, ctime_ns) changes whenever contents or metadata do."""

    path: bytes
    kind: str  # an EntryKind's value, or "?" for what trees do not keep (sockets, devices)
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    inode: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What `read` says of one path before its data: all that an Entry needs but its chunks.

    `gone` when it does not exist (any more) or is of another kind than asked for.
    """

    path: bytes
    gone: bool = False
    size: int = 0
    target: bytes = b""
    holes: tuple[tuple[int, int], ...] = ()
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    seen: Seen | None = None  # as it was when it was opened


@dataclass(frozen=True, slots=True)
class Write:
    """One step of `apply`: make `entry` stand at its path, whatever was there. Contents follow as `data` steps."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Data:
    """Contents of the file of the last Write, from its current position on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Skip:
    """A hole of the file of the last Write: that many bytes further."""

    length: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove what is at the path, with all below it; nothing there is no error."""

    path: bytes


Step = Write | Data | Skip | Remove
