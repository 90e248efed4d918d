"""A chunk store over real records (SQLite) and blobs in memory, with a clock that tests move."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atoll.blobs.base import Blobs
from atoll.domain.event import Event
from atoll.domain.ids import new_id, new_workspace_id
from atoll.domain.tree import CHUNK_BYTES, Entry, EntryKind, chunk_id
from atoll.domain.workspace import Lineage, Reason, Revision, Snapshot, Workspace
from atoll.records.sql import SqlRecords
from atoll.records.sqlite import Sqlite
from atoll.services.clock import Clock, utc_now
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.storage.chunk_writer import ChunkWriter
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.collecting import Collector
from atoll.services.workspaces.storage.keys import LineageKeys
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.services.workspaces.storage.verifying import Verifier
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_vault import MemoryVault
from atoll.vaults.base import Vault

KIB, MIB = 2**10, 2**20
OWNER = "key_a"
SMALL = StorageLimits(pack_bytes=64 * KIB, batch_bytes=16 * KIB, batch_chunks=16, run_bytes=32 * KIB, lookup_chunks=50)
DAY = timedelta(days=1)
ROOT = Entry(b"", EntryKind.DIRECTORY, 0o755)


class ClockedBlobs(MemoryBlobs):
    """Objects are as old as the test's clock says."""

    clock: Clock = staticmethod(utc_now)

    def _place(self, key: str, data: bytes) -> None:
        super()._place(key, data)
        self.modified_at[key] = self.clock()


@dataclass
class Storage:
    """Records and blobs, and the parts over them; `restart` is what a new process would see."""

    records: SqlRecords
    blobs: Blobs = field(default_factory=ClockedBlobs)
    vault: Vault = field(default_factory=MemoryVault)
    limits: StorageLimits = SMALL
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    chunks: ChunkStore = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.blobs, ClockedBlobs):
            self.blobs.clock = self.clock
        self.build()

    def build(self) -> None:
        self.keys = LineageKeys(self.records, self.vault, self.clock)
        self.chunks = ChunkStore(self.blobs, self.records, self.keys, self.limits, self.clock)
        self.manifests = Manifests(self.chunks)
        self.collector = Collector(self.chunks, self.manifests, WorkspaceLimits(), reuse_s=0)
        self.verifier = Verifier(self.chunks, self.manifests)

    async def restart(self, limits: StorageLimits | None = None) -> None:
        await self.chunks.close()
        self.limits = limits or self.limits
        self.build()

    def clock(self) -> datetime:
        return self.now

    def later(self, by: timedelta) -> None:
        """Let that much time pass."""
        self.now += by

    @property
    def packs(self) -> list[str]:
        assert isinstance(self.blobs, MemoryBlobs)
        return sorted(self.blobs.objects)

    async def lineage(self) -> Lineage:
        lineage = await self.keys.new(new_id("lin"), OWNER)
        await self.records.add_lineage(lineage)
        return lineage

    async def put(self, lineage: str, *data: bytes) -> list[bytes]:
        async with self.chunks.writer(lineage) as writer:
            return await writer.add_many(data)

    async def tree(self, lineage: str, files: dict[bytes, bytes]) -> list[Entry]:
        """The entries of a tree of such files, whose chunks are stored."""
        async with self.chunks.writer(lineage) as writer:
            return [ROOT, *[await file(writer, path, data) for path, data in sorted(files.items())]]

    async def workspace(self, files: dict[bytes, bytes], name: str = "w") -> Workspace:
        """A workspace with a lineage of its own, whose first revision holds those files."""
        lineage = await self.lineage()
        revision = await self.revision(new_workspace_id(), lineage.id, files)
        workspace = Workspace(revision.workspace, OWNER, name, lineage.id, revision.id, self.now, self.now)
        await self.records.add_workspace(workspace, revision, None, event("workspace.created", workspace.id))
        return workspace

    async def revise(self, workspace: Workspace, files: dict[bytes, bytes]) -> Workspace:
        """The workspace after a further revision."""
        last = await self.records.get_revision(workspace.head)
        assert last is not None
        revision = await self.revision(workspace.id, workspace.lineage, files, last.number + 1, last.id)
        return await self.records.add_revision(revision, workspace, event("workspace.revised", workspace.id))

    async def destroy(self, workspace: Workspace) -> None:
        """Delete it and its records; three days later what only it had is collected."""
        deleted = replace(workspace, deleted_at=self.now)
        await self.records.swap_workspace(deleted, event("workspace.deleted", workspace.id))
        await self.records.delete_workspace_records(workspace.id)
        self.later(3 * DAY)
        await self.collector.collect()

    async def revision(
        self, workspace: str, lineage: str, files: dict[bytes, bytes], number: int = 1, parent: str | None = None
    ) -> Revision:
        async with self.chunks.writer(lineage) as writer:
            entries = [ROOT, *[await file(writer, path, data) for path, data in sorted(files.items())]]
            tree, root = await self.manifests.store(writer, entries)
        return Revision(
            id=new_id("rev"),
            workspace=workspace,
            number=number,
            lineage=lineage,
            tree=tree,
            parent=parent,
            reason=Reason.ASKED,
            actor="key_a",
            created_at=self.now,
            entries=root.entries,
            bytes=root.bytes,
        )

    async def snapshot(self, workspace: Workspace, snapshot_id: str = "snap_2026_01_01_000000") -> Snapshot:
        head = await self.records.get_revision(workspace.head)
        assert head is not None
        snapshot = Snapshot(
            snapshot_id, workspace.id, workspace.owner, head.id, head.lineage, head.tree, self.now, entries=head.entries
        )
        await self.records.add_snapshot(snapshot, event("snapshot.created", snapshot_id))
        return snapshot

    async def files(self, workspace: Workspace, number: int | None = None) -> dict[bytes, bytes]:
        """What a revision holds, the head by default, all of it read."""
        revision = (
            await self.records.get_revision(workspace.head)
            if number is None
            else await self.records.find_revision(workspace.id, number)
        )
        assert revision is not None
        found: dict[bytes, bytes] = {}
        for entry in await self.manifests.load(revision.lineage, revision.tree):
            if entry.kind is EntryKind.FILE:
                parts = [data async for _, data in self.chunks.fetch(revision.lineage, entry.chunk_ids())]
                found[entry.path] = b"".join(parts)
        return found


def event(action: str, target: str) -> Event:
    return Event(action, target, "key_a", "key_a")


async def file(writer: ChunkWriter, path: bytes, data: bytes) -> Entry:
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    ids = [chunk_id(piece) for piece in pieces]
    for chunk, piece in zip(ids, pieces, strict=True):
        await writer.add(chunk, piece)
    return Entry(path, EntryKind.FILE, size=len(data), chunks=b"".join(ids))


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    records = SqlRecords(Sqlite(tmp_path / "atoll.db"))
    await records.start()
    made = Storage(records)
    await made.blobs.start()
    await made.vault.start()
    yield made
    await made.chunks.close()
    await records.close()
