"""Collecting: chunks that no revision and no snapshot refers to go, after a grace; packs that hold little else are
written anew, objects that no record names are deleted, lineages that nobody refers to lose their key first.

docs/decisions/0007-found-chunks-stay.md says why nothing goes that a push under way is about to use.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict, Corrupt, NotFound
from atoll.domain.event import Event
from atoll.domain.tree import ID_BYTES
from atoll.domain.workspace import Lineage, Pack, StoredChunk
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.storage.packs import PREFIX, PackBuilder, lineage_and_pack, pack_key
from atoll.services.workspaces.storage.sealing import Sealer

_log = structlog.get_logger()

REUSE_S = 3_600.0  # nothing that carries a tree from one revision to another (fork, restore, merge) takes longer
ORPHAN_S = 3_600.0  # the least age of an object that no record names: one that is being recorded is seconds old
LISTED_MAX = 1_000_000  # revisions or snapshots of one lineage; with more it is left alone
SMALL_PACKS = 8  # so many that are less than a quarter full are put together
REWRITTEN_MAX = 64  # packs written anew in one pass over a lineage


@dataclass(slots=True)
class Collected:
    """What one pass did. `kept` counts lineages that were left alone because something of them could not be read."""

    chunks: int = 0
    packs: int = 0
    rewritten: int = 0
    orphans: int = 0
    lineages: int = 0
    workspaces: int = 0
    bytes: int = 0
    kept: int = 0


class Collector:
    """Marks and sweeps. `collect` is called by a timer; two at once, in other processes too, do no harm."""

    def __init__(
        self, chunks: ChunkStore, manifests: Manifests, limits: WorkspaceLimits, *, reuse_s: float = REUSE_S
    ) -> None:
        self._chunks = chunks
        self._records = chunks.records
        self._blobs = chunks.blobs
        self._manifests = manifests
        self._limits = limits
        self._reuse = timedelta(seconds=reuse_s)
        self._first_look: datetime | None = None
        self._seen: dict[tuple[str, str], datetime] = {}  # (lineage, tree) -> when a pass last found it referred to
        self._swept: dict[str, int] = {}  # lineage -> a digest of what its last complete sweep went by

    async def collect(self) -> Collected:
        """One pass over everything. What fails for one lineage is logged and does not keep the others."""
        now = self._chunks.clock()
        before = now - timedelta(seconds=self._chunks.limits.grace_s)
        done = Collected()
        await self._forget_workspaces(now, done)
        if self._first_look is None:
            self._first_look = now
        for lineage in await self._records.list_lineages():
            try:
                await self._collect(lineage, now, before, done)
            except AtollError as error:
                done.kept += 1
                _log.warning("workspaces.collect.left", lineage=lineage.id, error=error.message)
        await self._delete_orphans(min(before, now - timedelta(seconds=ORPHAN_S)), done)
        self._seen = {tree: at for tree, at in self._seen.items() if at > now - self._reuse}
        return done

    async def _collect(self, lineage: Lineage, now: datetime, before: datetime, done: Collected) -> None:
        trees = await self._trees(lineage.id)
        if not trees and lineage.created_at < before:
            await self._end_lineage(lineage, done)
            return
        recent = {tree for (of, tree), at in self._seen.items() if of == lineage.id and at >= now - self._reuse}
        self._seen.update(dict.fromkeys(((lineage.id, tree) for tree in trees), now))
        if lineage.key is None:  # nobody can read it: its owner gets the room back now
            await self._delete_packs(await self._packs(lineage.id), done)
            return
        assert self._first_look is not None
        if now - self._first_look < self._reuse:
            return
        packs = await self._packs(lineage.id)
        old = {pack.id: pack for pack in packs if pack.created_at < before}
        if not old:
            return
        going_by = hash((frozenset(trees | recent), frozenset(old)))
        if self._swept.get(lineage.id) == going_by:
            return
        live = await self._mark(lineage.id, trees | recent)
        left = await self._sweep(lineage.id, old, live, before, done)
        await self._delete_packs([pack for pack in old.values() if left.get(pack.id, 0) == 0], done)
        rest = [(pack, left[pack.id]) for pack in old.values() if left.get(pack.id)]
        if await self._rewrite(lineage.id, rest, done):
            self._swept[lineage.id] = going_by

    async def _trees(self, lineage: str) -> set[str]:
        revisions = await self._records.list_revisions(lineage=lineage, limit=LISTED_MAX)
        snapshots = await self._records.list_snapshots(lineage=lineage, limit=LISTED_MAX)
        if max(len(revisions), len(snapshots)) >= LISTED_MAX:
            raise Conflict(f"{lineage} has more revisions or snapshots than can be looked through")
        return {revision.tree for revision in revisions} | {snapshot.tree for snapshot in snapshots}

    async def _packs(self, lineage: str) -> list[Pack]:
        packs: list[Pack] = []
        while page := await self._records.list_packs(lineage, after=packs[-1].id if packs else ""):
            packs += page
        return packs

    async def _mark(self, lineage: str, trees: Iterable[str]) -> Marks:
        """Everything that the trees refer to. Corrupt: then nothing of the lineage is swept."""
        live = Marks()
        pages_seen: set[bytes] = set()
        for tree in trees:
            live.add(bytes.fromhex(tree))
            try:
                root = await self._manifests.root(lineage, tree)
                new = [page for page in root.pages if page.id not in pages_seen]
                async for entries in self._manifests.pages(lineage, new):
                    for entry in entries:
                        live.add(entry.chunks)
            except Corrupt:
                if tree in await self._trees(lineage):
                    raise
                continue  # one that was referred to a while ago, and is gone
            for page in new:
                pages_seen.add(page.id)
                live.add(page.id)
        return live

    async def _sweep(
        self, lineage: str, old: dict[str, Pack], live: Marks, before: datetime, done: Collected
    ) -> dict[str, int]:
        """Forget unmarked chunks of old packs; pack -> bytes of chunks that it still holds."""
        left: dict[str, int] = {}
        after = b""
        while page := await self._records.list_chunks(lineage, after=after):
            after = page[-1].id
            dead = {chunk.id: chunk for chunk in page if chunk.pack in old and chunk.id not in live}
            if dead:
                done.chunks += await self._records.delete_chunks(lineage, list(dead), before)
                crash.point("workspaces.collect.forgotten")
            saved = await self._records.find_chunks(lineage, list(dead)) if dead else {}
            for chunk in page:
                if chunk.id not in dead or chunk.id in saved:  # saved: its pack was refreshed a moment ago
                    left[chunk.pack] = left.get(chunk.pack, 0) + chunk.stored_bytes
        return left

    async def _delete_packs(self, packs: Sequence[Pack], done: Collected) -> None:
        """Packs that hold nothing any more: no chunk ever comes to a pack that is there already."""
        if not packs:
            return
        await self._records.delete_packs([pack.id for pack in packs])
        crash.point("workspaces.collect.unlisted")
        for pack in packs:
            await self._blobs.delete(pack_key(pack.lineage, pack.id))
            done.packs += 1
            done.bytes += pack.bytes

    async def _rewrite(self, lineage: str, packs: Sequence[tuple[Pack, int]], done: Collected) -> bool:
        """Put what is left of packs that are less than half used, or of many small ones, into new packs.

        Whether none of them had to be left as it is.
        """
        full = self._chunks.limits.pack_bytes
        wasteful = [(pack, left) for pack, left in packs if left < pack.bytes / 2]
        small = [(pack, left) for pack, left in packs if left >= pack.bytes / 2 and pack.bytes < full / 4]
        if len(small) >= SMALL_PACKS:
            wasteful += small
        group: dict[str, Pack] = {}
        size = 0
        whole = True
        for number, (pack, left) in enumerate(wasteful[:REWRITTEN_MAX], 1):
            group[pack.id] = pack
            size += left
            if size >= full or number == min(len(wasteful), REWRITTEN_MAX):
                whole = await self._rewrite_group(lineage, group, done) and whole
                group, size = {}, 0
        return whole

    async def _rewrite_group(self, lineage: str, group: dict[str, Pack], done: Collected) -> bool:
        whole = True
        key = await self._chunks.keys.key(lineage)
        sealer = Sealer(key, lineage)
        builder = PackBuilder(lineage)
        held: dict[str, list[StoredChunk]] = {pack: [] for pack in group}
        after = b""
        while page := await self._records.list_chunks(lineage, after=after):
            after = page[-1].id
            for chunk in page:
                if chunk.pack in held:
                    held[chunk.pack].append(chunk)
        for pack, chunks in held.items():
            try:
                data = await self._blobs.get(pack_key(lineage, pack))
                await self._chunks.in_thread(_copy, data, chunks, sealer, builder)
            except (Corrupt, NotFound) as error:  # left for verification to tell; the next pass takes what is mended
                if self._chunks.healer is not None:
                    await self._chunks.healer.heal(lineage, pack, key)
                _log.warning("workspaces.collect.damaged", lineage=lineage, pack=pack, error=error.message)
                del group[pack]
                whole = False
        if not group or not builder.chunks:
            return whole
        data = await self._chunks.in_thread(builder.finish, sealer)
        await self._blobs.put(pack_key(lineage, builder.id), data)
        crash.point("workspaces.collect.rewritten")
        pack = Pack(builder.id, lineage, builder.bytes, self._chunks.clock())
        await self._records.move_chunks(pack, builder.chunks, list(group))
        crash.point("workspaces.collect.moved")
        for pack in group.values():
            await self._blobs.delete(pack_key(lineage, pack.id))
            done.rewritten += 1
            done.bytes += pack.bytes
        done.bytes -= builder.bytes
        return whole

    async def _delete_orphans(self, before: datetime, done: Collected) -> None:
        """Objects of lineages that we know, and of packs that we do not: writes and collections that were cut short.

        Objects of lineages that nobody knows stay: these may be the records of another day.
        """
        objects = [blob async for blob in self._blobs.list(PREFIX) if blob.modified_at < before]
        if not objects:
            return
        lineages = {lineage.id for lineage in await self._records.list_lineages()}
        packs: set[str] = set()
        after = ""
        while page := await self._records.list_packs(after=after):
            after = page[-1].id
            packs.update(pack.id for pack in page)
        for blob in objects:
            place = lineage_and_pack(blob.key)
            if place is not None and place[0] in lineages and place[1] not in packs:
                await self._blobs.delete(blob.key)
                done.orphans += 1
                done.bytes += blob.bytes

    async def _forget_workspaces(self, now: datetime, done: Collected) -> None:
        before = now - timedelta(seconds=self._limits.deleted_kept_s)
        for workspace in await self._records.list_workspaces(deleted=True, limit=LISTED_MAX):
            if workspace.deleted_at is not None and workspace.deleted_at < before:
                await self._records.delete_workspace_records(workspace.id)
                done.workspaces += 1

    async def _end_lineage(self, lineage: Lineage, done: Collected) -> None:
        """Shred it, then delete what nobody can read any more."""
        await self._chunks.keys.shred(lineage.id, Event("lineage.shredded", lineage.id, "system", "system"))
        crash.point("workspaces.collect.shredded")
        async for blob in self._blobs.list(f"{PREFIX}{lineage.id}/"):
            await self._blobs.delete(blob.key)
            done.bytes += blob.bytes
        crash.point("workspaces.collect.emptied")
        await self._records.delete_lineage(lineage.id)
        self._swept.pop(lineage.id, None)
        done.lineages += 1


class Marks:
    """A set of chunk ids in little memory: 9 bytes of each, sorted by the first. Two may pass for one: both stay."""

    def __init__(self) -> None:
        self._given = [array("Q") for _ in range(256)]
        self._shard: tuple[int, set[int]] | None = None

    def add(self, ids: bytes) -> None:
        """Ids, one after the other."""
        self._shard = None
        for at in range(0, len(ids), ID_BYTES):
            self._given[ids[at]].append(int.from_bytes(ids[at + 1 : at + 9], "big"))

    def __contains__(self, chunk: bytes) -> bool:
        """Quick when asked in the order of ids."""
        if self._shard is None or self._shard[0] != chunk[0]:
            self._shard = (chunk[0], set(self._given[chunk[0]]))
        return int.from_bytes(chunk[1:9], "big") in self._shard[1]


def _copy(data: bytes, chunks: Sequence[StoredChunk], sealer: Sealer, builder: PackBuilder) -> None:
    """All of them or, when one is damaged, none."""
    view = memoryview(data)
    pieces = [view[chunk.offset : chunk.offset + chunk.stored_bytes] for chunk in chunks]
    for chunk, piece in zip(chunks, pieces, strict=True):
        sealer.read(chunk.id, piece, chunk.bytes)
    for chunk, piece in zip(chunks, pieces, strict=True):
        builder.add(chunk.id, bytes(piece), chunk.bytes)
