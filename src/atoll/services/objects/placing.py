"""Placing: how files get into a working tree, and out of it: what stands in the way is found out first.

The objects service calls it under the workspace's lock. Programs in a sandbox may change the tree meanwhile: then the
keeper, which never follows a link, says no, or the last of both is what stands.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.tree import Entry, EntryKind, text
from atoll.services.objects.spool import Spool
from atoll.sidekick.keeper_client import Data, KeeperClient, ReadFile, Remove, Step, Write

FILE_MODE, FOLDER_MODE = 0o644, 0o755
WORDS = {"l": "a link", "p": "a pipe", "d": "a folder", "f": "a file"}


class NoObject(NotFound):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A file that may be written: the folders above it that lack, and its entry; or, without one, be removed."""

    path: bytes
    lacking: tuple[bytes, ...] = ()
    entry: Entry | None = None
    spool: Spool | None = None


class Ground:
    """What stands at some paths, and above them; each that is planned counts for those after it."""

    def __init__(self, keeper: KeeperClient) -> None:
        self._keeper = keeper
        self._there: dict[bytes, tuple[str, int]] = {}  # kind and mode; what is not there is not in it
        self._folders: set[bytes] | None = None  # that are not empty, once somebody had to know

    async def look(self, paths: Iterable[bytes]) -> None:
        """At all of them, in one go."""
        wanted = sorted({part for path in paths for part in (*_above(path), path)})
        reading = cast("AsyncGenerator[ReadFile | bytes]", self._keeper.read(wanted, contents=False))
        async with aclosing(reading) as items:
            async for item in items:
                if isinstance(item, ReadFile) and not item.gone and item.seen is not None:
                    self._there[item.path] = (item.seen.kind, item.seen.mode)

    async def write(self, path: bytes, mode: int | None, mtime_ns: int, spool: Spool) -> Planned:
        """Conflict where something above the path is no folder, or at it something that is no file, but for an empty
        folder, which clients of object stores cannot see."""
        lacking: list[bytes] = []
        for above in _above(path):
            kind, _ = self._there.get(above, ("", 0))
            if kind not in ("", "d"):
                raise Conflict(f"{text(above)!r} is {WORDS.get(kind, 'no folder')}: nothing can lie below it")
            if not kind:
                lacking.append(above)
        kind, was = self._there.get(path, ("", FILE_MODE))
        if kind not in ("", "f") and not (kind == "d" and await self._is_empty(path)):
            raise Conflict(f"{text(path)!r} is {WORDS.get(kind, 'no file')}, and no file")
        mode = mode if mode is not None else was & 0o777 if kind != "d" else FILE_MODE
        self._there |= dict.fromkeys(lacking, ("d", FOLDER_MODE)) | {path: ("f", mode)}
        if self._folders is not None:
            self._folders.update(_above(path))
        entry = Entry(path, EntryKind.FILE, mode, mtime_ns, size=spool.size, chunks=spool.chunks)
        return Planned(path, tuple(lacking), entry, spool)

    def remove(self, path: bytes) -> Planned:
        """NoObject where no file stands."""
        if self._there.get(path, ("", 0))[0] != "f":
            raise NoObject
        del self._there[path]
        self._folders = None
        return Planned(path)

    async def _is_empty(self, folder: bytes) -> bool:
        """Looks at the whole tree once; few clients put a file where a folder was."""
        if any(path.startswith(folder + b"/") for path in self._there):
            return False
        if self._folders is None:
            scan = cast("AsyncGenerator[tuple[bytes, bytes]]", self._keeper.scan_packed())
            async with aclosing(scan) as folders:
                self._folders = {where async for where, _ in folders}
        return folder not in self._folders


async def steps(planned: Sequence[Planned]) -> AsyncGenerator[Step]:
    """What makes all of it stand, in its order."""
    now_ns = time.time_ns()
    for one in planned:
        if one.entry is None or one.spool is None:
            yield Remove(one.path)
            continue
        for folder in one.lacking:
            yield Write(Entry(folder, EntryKind.DIRECTORY, FOLDER_MODE, now_ns))
        yield Write(one.entry)
        async with aclosing(one.spool.pieces()) as pieces:
            async for piece in pieces:
                yield Data(piece)


def _above(path: bytes) -> list[bytes]:
    """The folders above it but the root, the uppermost first."""
    parts = path.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]
