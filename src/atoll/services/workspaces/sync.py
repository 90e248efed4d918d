"""Sync: what clients ask that push and pull: what is there, what is missing, and a commit of all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from atoll.domain import crash
from atoll.domain.chunk_ids import HOLE
from atoll.domain.errors import Conflict, InvalidInput, QuotaExceeded, StaleVersion, TooLarge
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind, check_entries, text
from atoll.domain.tree_changes import changes
from atoll.domain.workspace import Permission, Reason, Workspace
from atoll.records.base import Records
from atoll.services.locks import Locks
from atoll.services.workspaces.access import Found, WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.possession import Possession
from atoll.services.workspaces.quotas import NAMES_PER_INODE, check_quota, surely_fits
from atoll.services.workspaces.refs import Refs, Resolved
from atoll.services.workspaces.restoring import Restoring
from atoll.services.workspaces.revising import Revising
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.viewing import Viewing
from atoll.services.workspaces.views import RevisionView, SentChunk
from atoll.telemetry.spans import spanned

IDS_MAX = 65_536
LOOKUP = 4_096
LISTED_MAX = 10_000
CHANGES_MIN = 65_536  # that a push may always bring, whatever the quota


class Sent(NamedTuple):
    """What of the sent chunks is stored now: how many were new, and their bytes."""

    chunks: int
    bytes: int


class Sync:
    """What the sync protocol asks; `docs/workspaces-api.md` is its description."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        refs: Refs,
        chunks: ChunkStore,
        manifests: Manifests,
        possession: Possession,
        revising: Revising,
        restoring: Restoring,
        viewing: Viewing,
        locks: Locks,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._access = access
        self._refs = refs
        self._chunks = chunks
        self._manifests = manifests
        self._possession = possession
        self._revising = revising
        self._restoring = restoring
        self._viewing = viewing
        self._locks = locks
        self._limits = limits

    async def head(self, principal: Principal, ref: str) -> RevisionView:
        """The state now: a working tree that may have changed is looked at first. Needs the permission `read`."""
        found = await self._access.find(principal, ref, Permission.READ)
        return await self._viewing.revision(await self._revising.take(found.workspace.id, Reason.PROCESS))

    async def entries(
        self, principal: Principal, ref: str, revision: str = "HEAD", since: str | None = None
    ) -> AsyncGenerator[Entry | bytes]:
        """That revision's entries, sorted; with `since` those that changed, and the paths that are gone. Errors come
        before the first. Needs the permission `read`."""
        found = await self._access.find(principal, ref, Permission.READ)
        wanted = (await self._refs.resolve(found.workspace, revision)).readable()
        if since is None:
            await self._manifests.root(wanted.lineage, wanted.tree)
            return self._all(wanted)
        base = (await self._refs.resolve(found.workspace, since)).readable()
        before, after = await self._manifests.changed_pages(base.lineage, base.tree, wanted.tree, wanted.lineage)
        return _changed(before, after)

    @spanned("workspace.sync.missing")
    async def missing(self, principal: Principal, ref: str, ids: Sequence[bytes]) -> list[bytes]:
        """Those that have to be sent, in order. Needs `write`."""
        found = await self._access.find(principal, ref, Permission.WRITE)
        if len(ids) > IDS_MAX:
            raise TooLarge(f"at most {IDS_MAX} ids at a time")
        asked = [id for id in dict.fromkeys(ids) if id != HOLE]
        missing = set(await self._chunks.missing(found.workspace.lineage, asked))
        here = [id for id in asked if id not in missing]
        missing.update(await self._possession.unproved(principal, found, here))
        return [id for id in asked if id in missing]

    @spanned("workspace.sync.chunks")
    async def chunks(self, principal: Principal, ref: str, sent: AsyncIterable[SentChunk]) -> Sent:
        """Store what the client sends, each verified. Durable once this returns; what was taken before an error stays.
        Needs `write`. InvalidInput for one that is not what its id says.

        A collaborator's all count as new, against the owner's limit too: else the answer, or that there is room, would
        tell what the owner's other workspaces hold. StorageFull."""
        found = await self._access.find(principal, ref, Permission.WRITE)
        use = await self._chunks.allowance.check_new(found.workspace.owner)
        taken: list[bytes] = []
        size = 0
        async with self._chunks.writer(found.workspace.lineage) as writer:
            try:
                async for chunk in sent:
                    size += len(chunk.data)
                    if found.permission is not None and use.most is not None and use.bytes + size > use.most:
                        raise await self._chunks.allowance.full(found.workspace.owner, use, size)
                    await writer.add_compressed(chunk.id, chunk.size, chunk.data)
                    taken.append(chunk.id)
            finally:
                await writer.flush()  # a cut keeps what came before it
        self._possession.prove(principal, found, taken)
        if found.permission is not None:
            return Sent(len(taken), size)
        return Sent(writer.stored_chunks, writer.stored_bytes)

    async def fetch(self, principal: Principal, ref: str, ids: Sequence[bytes]) -> AsyncGenerator[SentChunk]:
        """Those chunks in that order; one that does not exist comes empty. Needs the permission `read`."""
        found = await self._access.find(principal, ref, Permission.READ)
        if len(ids) > IDS_MAX:
            raise TooLarge(f"at most {IDS_MAX} ids at a time")
        withheld = await self._possession.unproved(principal, found, ids)
        snapshots = await self._records.list_snapshots(workspace=found.workspace.id, limit=LISTED_MAX)
        lineages = dict.fromkeys([found.workspace.lineage, *(one.lineage for one in snapshots)])
        return self._fetched(list(lineages), ids, withheld)

    @spanned("workspace.sync.commit")
    async def commit(
        self,
        principal: Principal,
        ref: str,
        base: str,
        changed: AsyncIterator[Entry | bytes],
        message: str | None = None,
    ) -> RevisionView:
        """The head with those entries in place, and without those paths, as the new head; the working tree follows.
        All of it or nothing. Needs `write`.

        Conflict when the head, after a look at the working tree, is not `base`. InvalidInput names a path or chunk
        that is missing or could not be part of a tree; QuotaExceeded.
        """
        found = await self._access.find(principal, ref, Permission.WRITE)
        self._revising.check_message(message)
        based = await self._refs.resolve(found.workspace, base)
        new, gone = await self._collected(changed, found.workspace, based.revision.entries)
        async with self._locks.hold(found.workspace.id):
            workspace = await self._access.current(found.workspace.id)
            for _ in range(self._limits.take_tries):
                taken = await self._revising.take_held(workspace, Reason.PROCESS)
                if based.tree != taken.head.tree:
                    raise Conflict(f"HEAD is revision {taken.head.number}, not {base} any more: sync again")
                before = await self._manifests.load(workspace.lineage, taken.head.tree)
                after = await asyncio.to_thread(_applied, before, new, gone)
                await self._check_chunks(principal, found, list(new.values()), before)
                size = await asyncio.to_thread(_size, after)
                if not surely_fits(workspace.quota, len(after), size):
                    await check_quota(workspace.quota, partial(_ready, before), after)
                stored = await self._revising.store(workspace.lineage, after)
                crash.point("workspaces.commit.stored")
                try:
                    head = await self._restoring.become_entries(
                        taken, after, stored, Reason.SYNC, principal.id, message
                    )
                    return await self._viewing.revision(head)
                except StaleVersion:
                    workspace = await self._access.current(workspace.id)
        raise StaleVersion()

    async def _collected(
        self, changed: AsyncIterator[Entry | bytes], workspace: Workspace, there: int
    ) -> tuple[dict[bytes, Entry], set[bytes]]:
        new: dict[bytes, Entry] = {}
        gone: set[bytes] = set()
        most = max(NAMES_PER_INODE * workspace.quota.inodes, CHANGES_MIN) + there
        async for one in changed:
            if isinstance(one, bytes):
                gone.add(one)
            else:
                new[one.path] = one
            if len(new) + len(gone) > most:
                raise QuotaExceeded(f"quotaInodes: with {workspace.quota.inodes} files and folders no push has so many")
        return new, gone

    async def _check_chunks(self, principal: Principal, found: Found, new: list[Entry], before: list[Entry]) -> None:
        """InvalidInput names the first path with a chunk that is not there, is of another size, or was never theirs."""
        sizes = await asyncio.to_thread(_new_chunks, new, before)
        lineage = found.workspace.lineage
        ids = list(sizes)
        lacking = set(await self._chunks.missing(lineage, ids))
        lacking.update(await self._possession.unproved(principal, found, [id for id in ids if id not in lacking]))
        for at in range(0, len(ids), LOOKUP):
            stored = await self._records.find_chunks(lineage, ids[at : at + LOOKUP])
            for id in ids[at : at + LOOKUP]:
                size, entry = sizes[id]
                place = stored.get(id)
                if place is None or id in lacking:
                    raise _wrong(entry, f"its chunk {id.hex()} has not been sent")
                if place.bytes != size:
                    raise _wrong(entry, f"its chunk {id.hex()} has {place.bytes} bytes where {size} belong")

    async def _all(self, wanted: Resolved) -> AsyncGenerator[Entry | bytes]:
        async with aclosing(self._manifests.entries(wanted.lineage, wanted.tree)) as entries:
            async for entry in entries:
                yield entry

    async def _fetched(
        self, lineages: Sequence[str], ids: Sequence[bytes], withheld: Collection[bytes]
    ) -> AsyncGenerator[SentChunk]:
        """From the first lineage, the workspace's; what it lacks from those of snapshots with keys of their own."""
        allowed = (id for id in ids if id not in withheld and id != HOLE)
        async with aclosing(self._chunks.fetch_compressed(lineages[0], allowed)) as chunks:
            for id in ids:
                if id in withheld or id == HOLE:
                    yield SentChunk(id, 0, b"")
                    continue
                chunk = SentChunk(*await anext(chunks))
                for other in lineages[1:]:
                    if chunk.data:
                        break
                    async with aclosing(self._chunks.fetch_compressed(other, [id])) as found:
                        chunk = SentChunk(*await anext(found))
                yield chunk


def _size(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)


async def _ready(entries: list[Entry]) -> list[Entry]:
    return entries


def _new_chunks(new: list[Entry], before: list[Entry]) -> dict[bytes, tuple[int, Entry]]:
    """Id -> (size, an entry that has it) of the chunks of files that were not there before. InvalidInput."""
    named = {entry.chunks for entry in new}
    old = {(one.chunks, one.size) for one in before if one.chunks in named and one.kind is EntryKind.FILE}
    sizes: dict[bytes, tuple[int, Entry]] = {}
    for entry in new:
        if entry.kind is not EntryKind.FILE or (entry.chunks, entry.size) in old:
            continue
        for id, _, size in entry.pieces():
            if id != HOLE and sizes.setdefault(id, (size, entry))[0] != size:
                raise _wrong(entry, f"its chunk {id.hex()} cannot have two sizes")
    return sizes


async def _changed(before: list[Entry], after: list[Entry]) -> AsyncGenerator[Entry | bytes]:
    for change in changes(before, after, directory_times=True):
        yield change.path if change.after is None else change.after


def _applied(before: list[Entry], new: dict[bytes, Entry], gone: set[bytes]) -> list[Entry]:
    """The entries with `new` in place and without what is at or below a path of `gone`; InvalidInput for no tree."""
    replaced = [entry for entry in before if entry.path in new]
    kept = [entry for entry in before if entry.path not in new]
    if gone:
        kept = [entry for entry in kept if not _is_gone(entry.path, gone)]
    after = sorted([*kept, *new.values()], key=attrgetter("path"))
    # Where nothing goes and nothing becomes of another kind, what is kept stands as well as it did before.
    if gone or any(entry.kind is not new[entry.path].kind for entry in replaced):
        touched = after
    else:
        needed = _needed(new.values())
        touched = [entry for entry in after if entry.path in needed]
    for _ in check_entries(touched):
        pass
    return after


def _needed(entries: Iterable[Entry]) -> set[bytes]:
    """Their paths, and those of all on which they stand: folders above them, files that they are further names of."""
    needed = {b""}
    waiting = [
        path for entry in entries for path in (entry.path, entry.target if entry.kind is EntryKind.HARDLINK else b"")
    ]
    for path in waiting:
        while path not in needed:
            needed.add(path)
            path = path.rpartition(b"/")[0]
    return needed


def _is_gone(path: bytes, gone: set[bytes]) -> bool:
    if path in gone:
        return True
    at = path.rfind(b"/")
    while at > 0:
        if path[:at] in gone:
            return True
        at = path.rfind(b"/", 0, at)
    return False


def _wrong(entry: Entry, message: str) -> InvalidInput:
    return InvalidInput(f"path {text(entry.path)!r}: {message}", field="path")
