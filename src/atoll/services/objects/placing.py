"""Placing: how one file gets into a working tree, and out of it: what stands in the way is found out first.

The objects service calls it under the workspace's lock. Programs in a sandbox may change the tree meanwhile: then the
keeper, which never follows a link, says no, or the last of both is what stands.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from atoll.domain.errors import Conflict
from atoll.domain.tree import Entry, EntryKind, text
from atoll.sidekick.keeper_client import Data, KeeperClient, ReadFile, Remove, Seen, Step, Write

FILE_MODE, FOLDER_MODE = 0o644, 0o755
WORDS = {"l": "a link", "p": "a pipe", "d": "a folder", "f": "a file"}


@dataclass(frozen=True, slots=True)
class There:
    """What is at a path: whether a file, with which mode, and which folders above it lack."""

    is_file: bool
    mode: int
    lacking: tuple[bytes, ...]


async def look(keeper: KeeperClient, path: bytes) -> There:
    """Conflict where something above the path is no folder, or at it something that is no file, but for an empty
    folder, which clients of object stores cannot see."""
    parts = path.split(b"/")
    paths = [b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    found: list[Seen | None] = []
    reading = cast("AsyncGenerator[ReadFile | bytes]", keeper.read(paths))
    async with aclosing(reading) as items:
        async for item in items:
            if not isinstance(item, ReadFile):
                continue
            found.append(None if item.gone else item.seen)
            if len(found) == len(paths):
                break  # the bytes of what is there are of no interest
    for above, seen in zip(paths, found[:-1], strict=False):
        if seen is not None and seen.kind != "d":
            raise Conflict(f"{text(above)!r} is {WORDS.get(seen.kind, 'no folder')}: nothing can lie below it")
    lacking = tuple(above for above, seen in zip(paths[:-1], found, strict=False) if seen is None)
    seen = found[-1]
    if seen is not None and seen.kind != "f" and not (seen.kind == "d" and await _is_empty(keeper, path)):
        raise Conflict(f"{text(path)!r} is {WORDS.get(seen.kind, 'no file')}, and no file")
    is_file = seen is not None and seen.kind == "f"
    return There(is_file, seen.mode & 0o777 if seen is not None and is_file else FILE_MODE, lacking)


async def _is_empty(keeper: KeeperClient, folder: bytes) -> bool:
    """Looks at the whole tree; few clients put a file where a folder was."""
    scan = cast("AsyncGenerator[tuple[bytes, bytes]]", keeper.scan_packed())
    async with aclosing(scan) as folders:
        async for where, _ in folders:
            if where == folder:
                return False
    return True


async def writing(entry: Entry, lacking: tuple[bytes, ...], pieces: AsyncGenerator[bytes]) -> AsyncGenerator[Step]:
    """The steps that make a file stand there, and the folders above it that lack."""
    async with aclosing(pieces):
        now_ns = time.time_ns()
        for folder in lacking:
            yield Write(Entry(folder, EntryKind.DIRECTORY, FOLDER_MODE, now_ns))
        yield Write(entry)
        async for piece in pieces:
            yield Data(piece)


async def removal(path: bytes) -> AsyncGenerator[Step]:
    """The step that removes what is there."""
    yield Remove(path)
