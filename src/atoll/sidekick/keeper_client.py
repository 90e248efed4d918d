"""The async client of one keeper: scan, read, apply and unpack the working tree of one workspace.

A keeper is a sidekick with a table of operations of its own (see docs/sidekick-protocol.md): every call opens one
connection through the runtime's connector. Paths are raw bytes, relative to the tree's root, which is b"".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from atoll.domain.tree import Entry
from atoll.sidekick.client import Connector


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


class KeeperClient:
    """Calls raise NotFound when the keeper is gone, TooLarge beyond the tree's quota, InvalidInput for a bad step."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def usage(self) -> tuple[int, int]:
        """(bytes, inodes) that the tree holds now."""
        raise NotImplementedError

    def scan(self) -> AsyncIterator[Sequence[Seen]]:
        """Every path of the tree, in pieces, each directory before what is in it, in no special order else."""
        raise NotImplementedError

    def read(self, paths: AsyncIterator[bytes] | Sequence[bytes]) -> AsyncIterator[ReadFile | bytes]:
        """For each path in order a ReadFile, and for files then their bytes in pieces without the holes.

        A file that changed while it was read is read again, up to three times; then it is told as it was last read.
        `size` may differ from what was scanned; exactly `size` minus the holes' lengths bytes follow.
        """
        raise NotImplementedError

    async def apply(self, steps: AsyncIterator[Step], *, sync: bool = True) -> list[Seen]:
        """Carry out steps in order; files are replaced in one step each. Directories' times are set at the end.

        Returns what is now at each written path, in order. `sync`: everything is on the disk before it returns.
        On an error what was done stays: callers apply to a new tree, or put things right from a revision.
        """
        raise NotImplementedError

    async def unpack(self, pieces: AsyncIterator[bytes], *, bytes_max: int, entries_max: int, strip: int = 0) -> int:
        """Unpack a tar stream into the (empty) tree as its user, the first `strip` parts of names left out; entries.

        InvalidInput for a malformed archive, absolute names, `..`, members that are neither files, directories nor
        links, links that lead out; TooLarge beyond the bounds. Nothing outside the tree exists for it.
        """
        raise NotImplementedError
