"""Copying: trees from one lineage into another, under the other's key: snapshots with a key of their own, and back."""

from __future__ import annotations

from atoll.domain.tree import Entry
from atoll.services.workspaces.refs import Resolved
from atoll.services.workspaces.revising import Stored
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests

BATCH_CHUNKS = 4_096


class Copying:
    """Moves nothing where both lineages are one."""

    def __init__(self, chunks: ChunkStore, manifests: Manifests) -> None:
        self._chunks = chunks
        self._manifests = manifests

    async def check_allowance(self, owner: str) -> None:
        """As `Allowance.check`, before a lineage is made for a copy."""
        await self._chunks.allowance.check_new(owner)

    async def into(self, lineage: str, wanted: Resolved) -> Stored:
        """The resolved tree, in `lineage`."""
        if wanted.lineage == lineage:
            root = await self._manifests.root(lineage, wanted.tree)
            return Stored(wanted.tree, root.entries, root.bytes, 0)
        return await self.entries(lineage, wanted.lineage, await self._manifests.load(wanted.lineage, wanted.tree))

    async def entries(self, lineage: str, source: str, entries: list[Entry]) -> Stored:
        """A manifest of entries in `lineage`; chunks that it lacks come from the lineage `source`."""
        async with self._chunks.writer(lineage) as writer:
            if source != lineage:
                ids = {id: None for entry in entries for id in entry.chunk_ids()}
                wanted = list(ids)
                for at in range(0, len(wanted), BATCH_CHUNKS):
                    missing = await self._chunks.missing(lineage, wanted[at : at + BATCH_CHUNKS])
                    async for id, data in self._chunks.fetch(source, missing):
                        await writer.add(id, data)
            tree, root = await self._manifests.store(writer, entries)
        return Stored(tree, root.entries, root.bytes, writer.stored_bytes)
