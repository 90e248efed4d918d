"""Objects: the files of workspaces as clients of object stores see them: keys `<workspace>/<path>` in one bucket.

The object-store door calls it with the Principal first. What is read is the state now, as a revision; what is written
goes into the working tree, as what a program writes does, so that a sync of a thousand files makes few revisions.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.domain import crash
from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.errors import Conflict, NotFound, Unavailable
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.workspace import Permission, Reason, Revision, Workspace
from atoll.services.deadline import deadline
from atoll.services.objects.checksums import ZEROS, Checksums
from atoll.services.objects.names import BadName, key_of, path_of
from atoll.services.objects.placing import look, removal, writing
from atoll.services.objects.spool import Spool
from atoll.services.workspaces.access import NotPermitted, NoWorkspace
from atoll.services.workspaces.on_demand import found_or_made
from atoll.services.workspaces.parts import Parts
from atoll.services.workspaces.workspaces import Workspaces

UPLOADS_MAX = 64
UPLOAD_WAIT_S = 30.0


class NoObject(NotFound):
    """There is no such object."""


class NotThat(Conflict):
    """The object is not, or not any more, the one that the request is about."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it is told. `key` is the path in its workspace."""

    key: str
    entry: Entry
    md5: bytes

    @property
    def generation(self) -> int:
        return generation_of(self.entry)


@dataclass(frozen=True, slots=True)
class Placing:
    """How an upload is to stand: what is None is as it was, or as usual."""

    mtime_ns: int | None = None
    mode: int | None = None
    generation: int | None = None  # of the object that it may replace; 0: of none


class Objects:
    """Reads need the permission `read`, changes `write`; a workspace that is not there is made by the first upload."""

    def __init__(self, parts: Parts, workspaces: Workspaces, uploads: Path) -> None:
        self._parts = parts
        self._workspaces = workspaces
        self._folder = uploads
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)
        self.checksums = Checksums(parts.chunks)

    # reading

    async def now(self, principal: Principal, ref: str) -> Revision | None:
        """What a workspace is now: a working tree that may have changed is looked at first. None where it is unknown,
        or somebody else's."""
        try:
            found = await self._parts.access.find(principal, ref, Permission.READ)
            return await self._parts.revising.take(found.workspace.id, Reason.PROCESS)
        except NoWorkspace:
            return None

    async def get(self, principal: Principal, ref: str, key: str, generation: int | None = None) -> StoredObject:
        """NoObject, also for a generation that it has no more."""
        return (await self._find(principal, ref, key, generation))[1]

    async def read(
        self, principal: Principal, ref: str, key: str, generation: int | None = None
    ) -> tuple[StoredObject, Reading]:
        """The object, and its bytes to come. NoObject as of `get`."""
        revision, found = await self._find(principal, ref, key, generation)
        return found, Reading(self._parts, revision.lineage, found.entry)

    async def _find(
        self, principal: Principal, ref: str, key: str, generation: int | None
    ) -> tuple[Revision, StoredObject]:
        path = _asked(key)
        revision = await self.now(principal, ref)
        entry = None if revision is None else await self._entry(revision, path)
        if revision is None or entry is None or generation not in (None, generation_of(entry)):
            raise NoObject
        [md5] = await self.checksums.of(revision.lineage, [entry])
        return revision, StoredObject(key, entry, md5)

    async def _entry(self, revision: Revision, path: bytes) -> Entry | None:
        """The file at a path, whichever of its names that is."""
        entry = await self._parts.manifests.find(revision.lineage, revision.tree, path)
        if entry is None or key_of(entry) is None:
            return None
        return await self.followed(revision, entry)

    async def followed(self, revision: Revision, entry: Entry) -> Entry | None:
        """The file itself, of a further name of it."""
        if entry.kind is not EntryKind.HARDLINK:
            return entry
        file = await self._parts.manifests.find(revision.lineage, revision.tree, entry.target)
        return None if file is None else file._replace(path=entry.path)

    # changing

    @asynccontextmanager
    async def upload(self) -> AsyncGenerator[Spool]:
        """Where an upload is kept until `put`. Unavailable when there are too many."""
        try:
            async with asyncio.timeout(UPLOAD_WAIT_S):
                await self._uploads.acquire()
        except TimeoutError:
            raise Unavailable(f"{UPLOADS_MAX} uploads are under way: try again") from None
        try:
            await self._parts.chunks.allowance.check_disks()
            async with Spool(self._folder) as spool:
                yield spool
        finally:
            self._uploads.release()

    async def put(self, principal: Principal, ref: str, key: str, spool: Spool, placing: Placing) -> StoredObject:
        """Give the upload its place, in one step; folders above it are made. BadName; Conflict where something that is
        no file stands there, or above it; NotThat; TooLarge or QuotaExceeded for what does not fit."""
        path = path_of(key)
        found = await found_or_made(self._workspaces, principal, ref)
        await self._parts.chunks.allowance.check_new(found.workspace.owner)
        async with self._parts.locks.hold(found.workspace.id):
            workspace = await self._parts.access.current(found.workspace.id)
            if placing.generation is not None:
                await self._check(workspace, path, placing.generation)
            workspace = await self._parts.trees.open(workspace)
            assert workspace.tree_id is not None
            keeper = await self._parts.trees.keeper(workspace)
            async with deadline(self._parts.limits.tree_s, "writing into the working tree"):
                there = await look(keeper, path)
                mtime_ns = placing.mtime_ns
                if mtime_ns is None:
                    mtime_ns = int(self._parts.access.clock().timestamp() * 10**9)
                mode = there.mode if placing.mode is None else placing.mode
                entry = Entry(path, EntryKind.FILE, mode, mtime_ns, size=spool.size, chunks=spool.chunks)
                await self._parts.trees.mark(workspace.tree_id, workspace)
                crash.point("objects.put.marked")
                await keeper.apply(writing(entry, there.lacking, spool.pieces()))
                crash.point("objects.put.written")
        self.checksums.remember(entry, spool.md5)
        self._parts.revising.touched(found.workspace.id)
        return StoredObject(key, entry, spool.md5)

    async def delete(self, principal: Principal, ref: str, key: str, generation: int | None = None) -> None:
        """Remove the file. The folder that it was in stays. NoObject, NotThat."""
        path = _asked(key)
        try:
            found = await self._parts.access.find(principal, ref, Permission.WRITE)
        except NotPermitted:
            raise
        except NotFound:
            raise NoObject from None
        async with self._parts.locks.hold(found.workspace.id):
            workspace = await self._parts.access.current(found.workspace.id)
            if generation is not None:
                await self._check(workspace, path, generation)
            workspace = await self._parts.trees.open(workspace)
            assert workspace.tree_id is not None
            keeper = await self._parts.trees.keeper(workspace)
            async with deadline(self._parts.limits.tree_s, "writing into the working tree"):
                try:
                    there = await look(keeper, path)
                except Conflict:
                    raise NoObject from None  # what stands there is no object
                if not there.is_file:
                    raise NoObject
                await self._parts.trees.mark(workspace.tree_id, workspace)
                await keeper.apply(removal(path))
        self._parts.revising.touched(found.workspace.id)

    async def _check(self, workspace: Workspace, path: bytes, generation: int) -> None:
        """NotThat unless that is the generation of what is there now; 0 of nothing."""
        taken = await self._parts.revising.take_held(workspace, Reason.PROCESS)
        entry = await self._entry(taken.head, path)
        if generation != (0 if entry is None else generation_of(entry)):
            raise NotThat


class Reading:
    """The bytes of one object."""

    def __init__(self, parts: Parts, lineage: str, entry: Entry) -> None:
        self._parts = parts
        self._lineage = lineage
        self._entry = entry

    async def pieces(self, first: int, length: int) -> AsyncIterator[bytes]:
        """So many bytes from the first on. Corrupt."""
        end = first + length
        wanted = [one for one in self._entry.pieces() if one.offset < end and one.offset + one.length > first]
        ids = (id for id, _, _ in wanted if id != HOLE)
        async with aclosing(self._parts.chunks.fetch(self._lineage, ids)) as chunks:
            for id, offset, size in wanted:
                begin, stop = max(first, offset), min(end, offset + size)
                if id != HOLE:
                    yield (await anext(chunks))[1][begin - offset : stop - offset]
                    continue
                for at in range(begin, stop, CHUNK_BYTES):
                    yield ZEROS[: stop - at]
                    await asyncio.sleep(0)  # nothing else waits here, and there may be terabytes


def _asked(key: str) -> bytes:
    """The path of an object that may be there. NoObject for what none can be called."""
    try:
        return path_of(key)
    except BadName:
        raise NoObject from None


def generation_of(entry: Entry) -> int:
    """A number that changes with a file's contents and time."""
    seen = b"%d:%d:%b" % (entry.mtime_ns, entry.size, entry.chunks)
    return int.from_bytes(hashlib.blake2b(seen, digest_size=8).digest(), "big") >> 1 or 1
