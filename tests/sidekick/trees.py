"""Trees for the keeper's tests: a folder's truth, its entries as a keeper tells them, and steps that make them."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from atoll.domain.tree import Entry, EntryKind
from atoll.sidekick.keeper_client import Data, KeeperClient, ReadFile, Remove, Seen, Skip, Step, Write

Contents = dict[bytes, list[tuple[int, bytes]]]  # path -> (offset, bytes) between its holes


def truth(folder: Path) -> dict[bytes, Any]:
    """What stands at each path, down to its holes' bytes; hardlinks as groups of equal paths."""
    found: dict[bytes, Any] = {}
    inodes: dict[int, list[bytes]] = {}
    root = os.fsencode(folder)
    for at, _, files in os.walk(root):
        for path in [at, *(os.path.join(at, name) for name in files + _linked_folders(at))]:
            info = os.lstat(path)
            inner = os.path.relpath(path, root) if path != root else b""
            inodes.setdefault(info.st_ino, []).append(inner)
            what: Any = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    what = (info.st_size, file.read() if info.st_size < 2**24 else b"", holes_of(path))
            elif stat.S_ISLNK(info.st_mode):
                what = os.readlink(path)
            attributes: list[tuple[str, bytes]] = []
            if not stat.S_ISLNK(info.st_mode):
                names = [name for name in os.listxattr(path) if name.startswith("user.")]
                attributes = sorted((name, os.getxattr(path, name)) for name in names)
            found[inner] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, what, attributes)
    return {**found, b"//linked": sorted(sorted(group) for group in inodes.values() if len(group) > 1)}


def _linked_folders(at: bytes) -> list[bytes]:
    """os.walk counts links to folders among the folders."""
    return [item.name for item in os.scandir(at) if item.is_symlink() and item.is_dir()]


def holes_of(path: bytes) -> list[tuple[int, int]]:
    holes: list[tuple[int, int]] = []
    with open(path, "rb") as file:
        end, at = os.fstat(file.fileno()).st_size, 0
        while at < end:
            start = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            if start >= end:
                break
            try:
                at = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:
                at = end
            holes.append((start, at - start))
    return holes


async def scanned(client: KeeperClient) -> dict[bytes, Seen]:
    return {seen.path: seen async for piece in client.scan() for seen in piece}


async def read_all(client: KeeperClient, paths: Iterable[bytes]) -> dict[bytes, tuple[ReadFile, bytes]]:
    found: dict[bytes, tuple[ReadFile, list[bytes]]] = {}
    last = b""
    async for item in client.read(list(paths)):
        if isinstance(item, bytes):
            found[last][1].append(item)
        else:
            last = item.path
            found[last] = (item, [])
    return {path: (file, b"".join(pieces)) for path, (file, pieces) in found.items()}


async def entries(client: KeeperClient) -> tuple[list[Entry], Contents]:
    """The tree as entries without chunk ids, sorted, with the contents of its files."""
    seen = await scanned(client)
    read = await read_all(client, sorted(seen))
    first: dict[int, bytes] = {}
    made: list[Entry] = []
    contents: Contents = {}
    for path in sorted(seen):
        file, data = read[path]
        assert file.seen is not None
        if file.seen.kind == "f" and file.seen.links > 1:
            if file.seen.inode in first:
                made.append(Entry(path, EntryKind.HARDLINK, 0, target=first[file.seen.inode]))
                continue
            first[file.seen.inode] = path
        now = file.seen
        made.append(
            Entry(
                path, EntryKind(now.kind), now.mode, now.mtime_ns, now.uid, now.gid, file.size,
                target=file.target, holes=file.holes, xattrs=file.xattrs,
            )
        )  # fmt: skip
        if now.kind == "f":
            contents[path] = _between(file, data)
    return made, contents


def _between(file: ReadFile, data: bytes) -> list[tuple[int, bytes]]:
    pieces: list[tuple[int, bytes]] = []
    at = taken = 0
    for start, length in (*file.holes, (file.size, 0)):
        pieces.append((at, data[taken : taken + start - at]))
        taken += start - at
        at = start + length
    assert taken == len(data)
    return [piece for piece in pieces if piece[1]]


async def steps(made: Iterable[Entry], contents: Contents) -> AsyncIterator[Step]:
    for entry in made:
        yield Write(entry)
        at = 0
        for offset, data in contents.get(entry.path, []):
            if offset > at:
                yield Skip(offset - at)
            yield Data(data)
            at = offset + len(data)
        if entry.size > at:
            yield Skip(entry.size - at)


async def these(*given: Step) -> AsyncIterator[Step]:
    for step in given:
        yield step


def file(path: bytes, data: bytes, mode: int = 0o644, mtime_ns: int = 10**18, **more: Any) -> tuple[Step, ...]:
    """The steps that make a file of the caller."""
    owner = {"uid": os.getuid(), "gid": os.getgid(), **more}
    write = Write(Entry(path, EntryKind.FILE, mode, mtime_ns, size=len(data), **owner))
    return (write, Data(data)) if data else (write,)


def folder(path: bytes, mode: int = 0o755, mtime_ns: int = 10**18) -> Step:
    return Write(Entry(path, EntryKind.DIRECTORY, mode, mtime_ns, os.getuid(), os.getgid()))


__all__ = [
    "Contents", "Remove", "entries", "file", "folder", "holes_of", "read_all", "scanned", "steps", "these", "truth",
]  # fmt: skip
