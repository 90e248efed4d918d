"""Archives: a revision as one tar.zst and the reverse; snapshots kept as files besides.

Going out an archive is made from the manifest; coming in it is unpacked by the keeper of a new tree, in which there is
nothing else, and which becomes a revision like any other tree. Memory stays bounded both ways.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from functools import partial

from atoll.domain import crash
from atoll.domain.chunk_ids import CHUNK_BYTES, HOLE, ID_BYTES
from atoll.domain.errors import QuotaExceeded, RateLimited, TooLarge
from atoll.domain.ids import new_id
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry
from atoll.domain.tree_size import TreeSize, size_of, with_slack
from atoll.domain.workspace import Permission, Quota, Reason, Workspace
from atoll.runtimes.base import Runtime
from atoll.services.deadline import deadline
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.archives.tar_members import END, member
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.quotas import NAMES_PER_INODE, at_least, surely_fits
from atoll.services.workspaces.refs import Refs
from atoll.services.workspaces.restoring import Restoring
from atoll.services.workspaces.revising import Revising, Stored
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.storage.zstd_stream import compressed, decompressed
from atoll.services.workspaces.trees.working_trees import WorkingTrees
from atoll.services.workspaces.viewing import Viewing
from atoll.services.workspaces.views import RevisionView

SLOTS_HERE = 1_000  # of chunk ids and holes of a file whose member is made without a thread
ENTRY_BYTES_MAX = 4_096  # of an archive that an entry may take besides its contents, on average


class TreeArchives:
    """Trees as archives."""

    def __init__(self, chunks: ChunkStore, manifests: Manifests) -> None:
        self._chunks = chunks
        self._manifests = manifests

    async def export(self, lineage: str, tree: str, root: bytes = b"") -> AsyncGenerator[bytes]:
        """The tar.zst of a tree, below a directory `root` or at the top. Corrupt, when half of it is sent too."""
        async with aclosing(self._tar(lineage, tree, root)) as pieces:
            async for piece in compressed(pieces, self._chunks.in_thread):
                yield piece

    async def _tar(self, lineage: str, tree: str, root: bytes) -> AsyncGenerator[bytes]:
        async with (
            aclosing(self._manifests.entries(lineage, tree)) as entries,
            aclosing(self._chunks.fetch(lineage, self._chunk_ids(lineage, tree))) as contents,
        ):
            async for entry in entries:
                make = partial(member, entry, root)
                many = len(entry.holes) + len(entry.chunks) // ID_BYTES > SLOTS_HERE
                header, segments, padding = await self._chunks.in_thread(make) if many else make()
                yield header
                async with aclosing(_cut(entry, segments, contents)) as pieces:
                    async for piece in pieces:
                        yield piece
                yield padding
        yield END

    async def _chunk_ids(self, lineage: str, tree: str) -> AsyncGenerator[bytes]:
        async with aclosing(self._manifests.entries(lineage, tree)) as entries:
            async for entry in entries:
                for chunk in entry.chunk_ids():
                    yield chunk


async def _cut(
    entry: Entry, segments: list[tuple[int, int]], contents: AsyncIterator[tuple[bytes, bytes]]
) -> AsyncGenerator[bytes]:
    """The file's bytes within the segments. Takes all chunks of the file off `contents`."""
    waiting = list(reversed(segments))
    for chunk, begin, whole in entry.pieces():
        end = begin + whole
        data = None if chunk == HOLE else (await anext(contents))[1]
        while waiting and waiting[-1][0] < end:
            at, length = waiting.pop()
            stop = min(at + length, end)
            if data is not None:
                yield data[at - begin : stop - begin]
            else:  # of a file whose holes are too few for the archive to tell of them
                for done in range(at, stop, CHUNK_BYTES):
                    yield bytes(min(CHUNK_BYTES, stop - done))
            if at + length > end:
                waiting.append((end, at + length - end))


class Archives:
    """Exports and imports of workspaces."""

    def __init__(
        self,
        runtime: Runtime,
        access: WorkspaceAccess,
        refs: Refs,
        chunks: ChunkStore,
        manifests: Manifests,
        tree_archives: TreeArchives,
        trees: WorkingTrees,
        revising: Revising,
        restoring: Restoring,
        viewing: Viewing,
        locks: Locks,
        limits: WorkspaceLimits,
    ) -> None:
        self._runtime = runtime
        self._access = access
        self._refs = refs
        self._chunks = chunks
        self._manifests = manifests
        self._tree_archives = tree_archives
        self._trees = trees
        self._revising = revising
        self._restoring = restoring
        self._viewing = viewing
        self._locks = locks
        self._limits = limits
        self._importing: Counter[str] = Counter()  # principal -> imports under way

    async def export(self, principal: Principal, ref: str, revision: str = "HEAD") -> AsyncGenerator[bytes]:
        """The tar.zst of a revision, in pieces; close it when you stop early. Needs the permission `read`.

        NotFound for the revision, Corrupt when it is known to be damaged: before the first piece.
        """
        found = await self._access.find(principal, ref, Permission.READ)
        wanted = (await self._refs.resolve(found.workspace, revision)).readable()
        return self._tree_archives.export(wanted.lineage, wanted.tree)

    async def import_archive(
        self,
        principal: Principal,
        ref: str,
        pieces: AsyncIterable[bytes],
        *,
        strip: int = 0,
        message: str | None = None,
    ) -> RevisionView:
        """Make the workspace what a tar.zst holds, the first `strip` parts of its names left out. Needs `write`.

        All of it or nothing. InvalidInput for a malformed archive, TooLarge and DeadlineExceeded beyond the bounds,
        QuotaExceeded when the workspace cannot hold it, RateLimited when as many imports as one may have are under way.
        What was there before is a revision and can be restored.
        """
        found = await self._access.find(principal, ref, Permission.WRITE)
        self._revising.check_message(message)
        self._trees.require()
        workspace = found.workspace
        await self._chunks.allowance.check_new(workspace.owner)
        with self._turn(principal):
            async with deadline(self._limits.import_s, "importing the archive"):
                stored = await self._unpacked(workspace, pieces, strip)
        crash.point("workspaces.import.stored")
        async with self._locks.hold(workspace.id):
            workspace = await self._access.current(workspace.id)
            became = await self._restoring.become(workspace, stored, Reason.IMPORT, principal.id, message)
        return await self._viewing.revision(became.head)

    @contextmanager
    def _turn(self, principal: Principal) -> Generator[None]:
        """Each import holds a working tree and its keeper for as long as the archive takes to come."""
        most = self._limits.imports_per_key
        if self._importing[principal.id] >= most:
            raise RateLimited(f"{most} imports are under way: wait until one has ended")
        self._importing[principal.id] += 1
        try:
            yield
        finally:
            self._importing[principal.id] -= 1
            if not self._importing[principal.id]:
                del self._importing[principal.id]

    async def _allowed(self, workspace: Workspace) -> Quota:
        """What it may hold: its quota, or what it holds already. What came of the archive is measured once more."""
        head = await self._trees.head(workspace)
        if surely_fits(workspace.quota, head.entries, head.bytes):
            return workspace.quota
        entries = await self._manifests.load(workspace.lineage, head.tree)
        return at_least(workspace.quota, await asyncio.to_thread(size_of, entries))

    async def _unpacked(self, workspace: Workspace, pieces: AsyncIterable[bytes], strip: int) -> Stored:
        """The archive as a stored tree, by way of a working tree that is gone again."""
        limits, quota = self._limits, await self._allowed(workspace)
        bytes_max = min(limits.import_bytes, quota.bytes)
        entries_max = min(limits.import_entries, NAMES_PER_INODE * quota.inodes)
        tree_id = new_id("tree")
        self._trees.fresh.add(tree_id)
        try:
            await self._runtime.make_tree(tree_id, Quota(with_slack(TreeSize(bytes_max, 0)).bytes, quota.inodes))
            crash.point("workspaces.tree.made")
            keeper = await self._trees.keeper_of(tree_id)
            stream_max = bytes_max + entries_max * ENTRY_BYTES_MAX
            tar = decompressed(pieces, self._chunks.in_thread, stream_max)
            async with aclosing(self._chunks.allowance.while_free(tar)) as tar:
                await keeper.unpack(tar, bytes_max=bytes_max, entries_max=entries_max, strip=strip)
            crash.point("workspaces.import.unpacked")
            stored = (await self._revising.read(tree_id, workspace.lineage, None, None)).stored
        except TooLarge as error:
            if bytes_max < limits.import_bytes or entries_max < limits.import_entries:
                told = f"quotaBytes {quota.bytes}, quotaInodes {quota.inodes}"
                raise QuotaExceeded(f"the workspace ({told}) cannot hold it: {error.message}") from None
            raise
        finally:
            await self._trees.remove(tree_id)
            self._trees.fresh.discard(tree_id)
        return stored
