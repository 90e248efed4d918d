"""Single files: what lies in a workspace now, one folder or one file at a time, for surfaces that know no revisions.

A path is looked up in the entries of a tree and never resolved: a symlink is an entry, and leads nowhere. What is
written or removed becomes a revision in one step, and the live sandboxes have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

import zstandard

from atoll.domain.chunk_ids import CHUNK_BYTES
from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind, check_path, chunk_id, raw, text
from atoll.domain.workspace import Permission, Reason, Revision
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.history import History
from atoll.services.workspaces.revising import HOME, Revising
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.sync import Sync
from atoll.services.workspaces.trees.splicing import splice
from atoll.services.workspaces.views import Listing, SentChunk

LEVEL = 3
TRIES = 4  # against others who change the workspace at the same moment
_Change = Callable[[dict[bytes, Entry], int], list[Entry]]  # from the entries by path, and the moment in nanoseconds


class NoFile(NotFound):
    """There is no such file."""


class NoFolder(NotFound):
    """There is no such folder."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Bytes that are stored, and stand nowhere yet."""

    size: int
    chunks: bytes


class SingleFiles:
    """Reads need the permission `read`, changes `write`."""

    def __init__(
        self, access: WorkspaceAccess, history: History, manifests: Manifests, revising: Revising, sync: Sync
    ) -> None:
        self._access = access
        self._history = history
        self._manifests = manifests
        self._revising = revising
        self._sync = sync

    async def list(self, principal: Principal, ref: str, path: str, *, limit: int, after: str | None = None) -> Listing:
        """The entries of a folder, by name, hardlinks with their file's size; of the whole workspace without `.home`,
        which is the programs'. NoFolder."""
        where = path_of(path)
        head = await self._now(principal, ref, Permission.READ)
        try:
            found = await self._history.files(principal, ref, head.id, text(where), limit=limit, after=after)
        except NotFound:
            raise NoFolder(f"there is no folder {path!r}") from None
        if found.entries and found.entries[0].path == where:
            raise NoFolder(f"{path!r} is no folder")
        entries = [await self._followed(found, entry) for entry in found.entries if entry.path != HOME]
        return replace(found, entries=entries)

    async def read(self, principal: Principal, ref: str, path: str) -> tuple[Entry, AsyncGenerator[bytes]]:
        """A file's entry (its size is the length of what follows) and its bytes. NoFile, also for what is none."""
        where = path_of(path)
        head = await self._now(principal, ref, Permission.READ)
        try:
            return await self._history.file(principal, ref, text(where), head.id)
        except (NotFound, InvalidInput):
            raise NoFile(f"there is no file {path!r}") from None

    async def store(self, principal: Principal, ref: str, pieces: AsyncIterator[bytes]) -> Contents:
        """Store bytes for a file that `put` names. What no file comes to name is collected later."""
        ids: list[bytes] = []
        size = 0

        async def chunks() -> AsyncGenerator[SentChunk]:
            nonlocal size
            async for data in _cut(pieces):
                id, frame = await asyncio.to_thread(_packed, data)
                ids.append(id)
                size += len(data)
                yield SentChunk(id, len(data), frame)

        await self._sync.chunks(principal, ref, chunks())
        return Contents(size, b"".join(ids))

    async def put(self, principal: Principal, ref: str, path: str, contents: Contents) -> None:
        """A file with these contents, in place of one that is there, whose mode stays; folders above it are made.
        InvalidInput where a folder stands there, or something else in the way; QuotaExceeded."""
        where = path_of(path)
        if not where:
            raise InvalidInput("path must name a file", field="path")

        def placed(now: dict[bytes, Entry], moment_ns: int) -> list[Entry]:
            above = _folders(now, where, moment_ns)
            there = now.get(where)
            if there is not None and there.kind is EntryKind.DIRECTORY:
                raise InvalidInput(f"{text(where)!r} is a folder", field="path")
            mode = there.mode if there is not None and there.kind is EntryKind.FILE else 0o644
            made = Entry(where, EntryKind.FILE, mode, moment_ns, size=contents.size, chunks=contents.chunks)
            return splice(now.values(), [*above, made], where)

        await self._change(principal, ref, placed)

    async def remove(self, principal: Principal, ref: str, path: str) -> None:
        """Remove a file, or a symlink itself. NoFile, also for a folder."""
        where = path_of(path)

        def without(now: dict[bytes, Entry], _moment_ns: int) -> list[Entry]:
            there = now.get(where)
            if there is None or there.kind is EntryKind.DIRECTORY:
                raise NoFile(f"there is no file {path!r}")
            above = [now[parent] for parent in _parents(where)]
            return splice(now.values(), above, where)

        await self._change(principal, ref, without)

    async def _change(self, principal: Principal, ref: str, change: _Change) -> None:
        for attempt in range(1, TRIES + 1):
            head = await self._now(principal, ref, Permission.WRITE)
            entries = await self._manifests.load(head.lineage, head.tree)
            moment_ns = int(self._access.clock().timestamp() * 10**9)
            changes = await asyncio.to_thread(_changes, entries, change, moment_ns)
            try:
                await self._sync.commit(principal, ref, head.id, _each(changes))
                return
            except Conflict:
                if attempt == TRIES:
                    raise

    async def _now(self, principal: Principal, ref: str, need: Permission) -> Revision:
        """The state now: a working tree that may have changed is looked at first."""
        found = await self._access.find(principal, ref, need)
        return await self._revising.take(found.workspace.id, Reason.PROCESS)

    async def _followed(self, found: Listing, entry: Entry) -> Entry:
        if entry.kind is not EntryKind.HARDLINK:
            return entry
        file = await self._manifests.find(found.revision.lineage, found.revision.tree, entry.target)
        return entry if file is None else file._replace(path=entry.path)


def path_of(path: str) -> bytes:
    """What a client calls a path, from the workspace's root on; `.` and `` are that. InvalidInput where it leads out,
    or could be none."""
    where = raw("/".join(part for part in path.split("/") if part not in ("", ".")))
    check_path(where)
    return where


async def _cut(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """As chunks: all of one size but the last."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)


def _packed(data: bytes) -> tuple[bytes, bytes]:
    return chunk_id(data), zstandard.ZstdCompressor(level=LEVEL).compress(data)


def _parents(path: bytes) -> list[bytes]:
    """The root, and each folder above it."""
    parts = path.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(len(parts))]


def _folders(now: dict[bytes, Entry], path: bytes, moment_ns: int) -> list[Entry]:
    """Those above a path, made where they are not there."""
    found: list[Entry] = []
    for parent in _parents(path):
        there = now.get(parent)
        if there is not None and there.kind is not EntryKind.DIRECTORY:
            raise InvalidInput(f"{text(parent)!r} is no folder", field="path")
        found.append(there or Entry(parent, EntryKind.DIRECTORY, 0o755, moment_ns))
    return found


def _changes(entries: Sequence[Entry], change: _Change, moment_ns: int) -> list[Entry | bytes]:
    now = {entry.path: entry for entry in entries}
    after = change(now, moment_ns)
    there = {entry.path for entry in after}
    gone = [path for path in now if path not in there]
    return [*gone, *(entry for entry in after if now.get(entry.path) != entry)]


async def _each(changes: Sequence[Entry | bytes]) -> AsyncGenerator[Entry | bytes]:
    for change in changes:
        yield change
