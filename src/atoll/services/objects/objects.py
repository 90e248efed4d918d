"""Objects: the files of workspaces as clients of object stores see them: keys `<workspace>/<path>` in one bucket.

The object-store door calls it with the Principal first. What is read is the state now, as a revision; what is written
goes into the working tree, as what a program writes does, so that a sync of a thousand files makes few revisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry
from atoll.domain.workspace import Permission, Reason, Revision
from atoll.services.objects.batches import Batches, Change, Placing, file_at, generation_of
from atoll.services.objects.checksums import ZEROS, Checksums
from atoll.services.objects.names import BadName, path_of
from atoll.services.objects.placing import NoObject
from atoll.services.objects.spool import Spool
from atoll.services.objects.turns import Turns
from atoll.services.workspaces.access import NoWorkspace
from atoll.services.workspaces.on_demand import found_or_free, found_or_made
from atoll.services.workspaces.parts import Parts
from atoll.services.workspaces.workspaces import Workspaces


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it is told. `key` is the path in its workspace."""

    key: str
    entry: Entry
    md5: bytes

    @property
    def generation(self) -> int:
        return generation_of(self.entry)


class Objects:
    """Reads need the permission `read`, changes `write`; a workspace that is not there is made by the first upload."""

    def __init__(self, parts: Parts, workspaces: Workspaces, uploads: Path, *, object_bytes: int) -> None:
        self._parts = parts
        self._workspaces = workspaces
        self._folder = uploads
        self._turns = Turns()
        self.object_bytes = object_bytes
        self._batches = Batches(parts, object_bytes)
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
        entry = None if revision is None else await file_at(self._parts, revision, path, self.object_bytes)
        if revision is None or entry is None or generation not in (None, generation_of(entry)):
            raise NoObject
        [md5] = await self.checksums.of(principal.id, revision.lineage, [entry])
        return revision, StoredObject(key, entry, md5)

    # changing

    @asynccontextmanager
    async def upload(self, principal: Principal, ref: str) -> AsyncGenerator[Spool]:
        """Where an upload is kept until `put`. NoWorkspace or Forbidden where that could not be; Unavailable when there
        are too many, or too many of the principal's."""
        await found_or_free(self._workspaces, principal, ref)
        async with self._turns.turn(principal.id):
            await self._parts.chunks.allowance.check_disks()
            async with Spool(self._folder, self._parts.chunks.allowance.check_disks) as spool:
                yield spool

    async def put(self, principal: Principal, ref: str, key: str, spool: Spool, placing: Placing) -> StoredObject:
        """Give the upload its place, in one step; folders above it are made. BadName; Conflict where something that is
        no file stands there, or above it; NotThat; TooLarge or QuotaExceeded for what does not fit."""
        path = path_of(key)
        found = await found_or_made(self._workspaces, principal, ref)
        await self._parts.chunks.allowance.check(found.workspace.owner)
        entry = await self._batches.make(found.workspace.id, Change(path, placing, spool))
        assert entry is not None
        self.checksums.remember(entry, spool.md5)
        return StoredObject(key, entry, spool.md5)

    async def delete(self, principal: Principal, ref: str, key: str, generation: int | None = None) -> None:
        """Remove the file. The folder that it was in stays. NoObject, NotThat."""
        path = _asked(key)
        try:
            found = await self._parts.access.find(principal, ref, Permission.WRITE)
        except NoWorkspace:
            raise NoObject from None
        await self._batches.make(found.workspace.id, Change(path, Placing(generation=generation)))


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
