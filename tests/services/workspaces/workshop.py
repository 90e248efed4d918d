"""A workspaces service over fakes: records and blobs in memory, trees in real folders with real keepers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atoll.domain.sandbox import Sandbox, SandboxSpec
from atoll.domain.tree import CHUNK_BYTES, Entry, EntryKind, chunk_id
from atoll.domain.workspace import Revision, WorkspaceMount
from atoll.services.limits import Limits
from atoll.services.sandbox_parts import make_sandbox_parts
from atoll.services.sandboxes import Sandboxes
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.parts import Parts, make_parts
from atoll.services.workspaces.storage.storage_limits import StorageLimits
from atoll.services.workspaces.views import RevisionView, SentChunk, WorkspaceView
from atoll.services.workspaces.workspaces import Workspaces
from atoll.testing.fake_runtime import FakeHost, FakeRuntime
from atoll.testing.memory_blobs import MemoryBlobs
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault
from tests.principals import introduce
from tests.services.conftest import ALICE, BOB, QUICK

LIMITS = WorkspaceLimits(touched_delay_s=0.05, settle_s=0.05, orphan_grace_s=0.0, call_s=5.0, tree_s=20.0, close_s=2.0)


@dataclass
class Workshop:
    """`restart` is what a new server process would see."""

    data: Path
    records: MemoryRecords = field(default_factory=MemoryRecords)
    host: FakeHost = field(default_factory=FakeHost)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    vault: MemoryVault = field(default_factory=MemoryVault)
    limits: WorkspaceLimits = LIMITS
    storage_limits: StorageLimits = field(default_factory=StorageLimits)
    snapshot_files: Path | None = None
    plain_copies: Path | None = None
    sandbox_limits: Limits = QUICK
    runtime_kind: type[FakeRuntime] = FakeRuntime
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    runtime: FakeRuntime = field(init=False)
    parts: Parts = field(init=False)
    workspaces: Workspaces = field(init=False)
    sandboxes: Sandboxes = field(init=False)

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> None:
        self.runtime = self.runtime_kind(self.host)
        self.parts = make_parts(
            self.records,
            self.runtime,
            self.blobs,
            self.vault,
            self.data / "stamps",
            limits=self.limits,
            storage_limits=self.storage_limits,
            clock=self.clock,
            snapshot_files=self.snapshot_files,
            folder=self.plain_copies,
            disks=[self.data],
        )
        self.workspaces = Workspaces(self.parts)
        self.sandbox_parts = make_sandbox_parts(
            self.records,
            self.runtime,
            self.data,
            limits=self.sandbox_limits,
            boot_id=lambda: self.host.boot_id,
            workspaces=self.workspaces.mounts,
        )
        self.sandboxes = Sandboxes(self.sandbox_parts)
        self.workspaces.join(self.sandboxes)

    def clock(self) -> datetime:
        """A moment after the one before."""
        self.now += timedelta(milliseconds=1)
        return self.now

    async def start(self) -> None:
        await self.workspaces.start()
        await self.sandboxes.start()

    async def close(self) -> None:
        await self.sandboxes.close()
        await self.workspaces.close()

    async def restart(self) -> None:
        await self.close()
        self.build()
        await self.start()

    async def die(self) -> None:
        """As `kill -9` would: nothing in memory is left; what runs is cut."""
        for task in list(self.parts.background._tasks):  # pyright: ignore[reportPrivateUsage]
            task.cancel()
        await self.restart()

    # what tests do

    async def create(self, name: str = "w", **fields: object) -> WorkspaceView:
        return await self.workspaces.create(ALICE, name, **fields)  # type: ignore[arg-type]

    async def mount(self, *names: str, read_only: bool = False, command: tuple[str, ...] = ()) -> Sandbox:
        mounts = tuple(
            WorkspaceMount(name, "/workspace" if not at else f"/workspace{at}", read_only)
            for at, name in enumerate(names)
        )
        return await self.sandboxes.create(ALICE, SandboxSpec(command=command, workspaces=mounts))

    async def folder(self, name: str) -> Path:
        """Its working tree, as a tenant sees it."""
        return self.host.trees.folder(await self.folder_id(name))

    async def folder_id(self, name: str) -> str:
        found = await self.records.find_workspace(ALICE.id, name)
        assert found is not None and found.tree_id is not None
        return found.tree_id

    async def take(self, name: str = "w") -> Revision:
        return await self.workspaces.revising.ask(ALICE, name)

    async def entries(self, name: str, revision: str = "HEAD") -> list[Entry]:
        listed = await self.workspaces.sync.entries(ALICE, name, revision)
        return [one async for one in listed if isinstance(one, Entry)]

    async def files(self, name: str, revision: str = "HEAD") -> dict[bytes, bytes]:
        """The contents of every file of a revision."""
        found: dict[bytes, bytes] = {}
        for entry in await self.entries(name, revision):
            if entry.kind is EntryKind.FILE:
                _, pieces = await self.workspaces.history.file(ALICE, name, os.fsdecode(entry.path), revision)
                found[entry.path] = b"".join([piece async for piece in pieces])
            elif entry.kind is EntryKind.HARDLINK:
                found[entry.path] = found[entry.target]
        return found

    async def log(self, name: str = "w") -> list[RevisionView]:
        return await self.workspaces.history.log(ALICE, name)

    async def reasons(self, name: str = "w") -> list[str]:
        return [one.revision.reason.value for one in reversed(await self.log(name))]

    async def push(self, name: str, base: str, files: dict[bytes, bytes | None], principal=ALICE) -> RevisionView:  # type: ignore[no-untyped-def]
        """Commit files, None for those that go."""
        import zstandard

        sent: list[SentChunk] = []
        changed: list[Entry | bytes] = []
        for path, data in sorted(files.items()):
            if data is None:
                changed.append(path)
                continue
            pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
            ids = [chunk_id(piece) for piece in pieces]
            sent += [
                SentChunk(id, len(piece), zstandard.compress(piece)) for id, piece in zip(ids, pieces, strict=True)
            ]
            changed.append(Entry(path, EntryKind.FILE, 0o644, 10**18, size=len(data), chunks=b"".join(ids)))
        await self.workspaces.sync.chunks(principal, name, each(sent))
        return await self.workspaces.sync.commit(principal, name, base, each(changed))


async def each(items: Iterable[object]) -> AsyncIterator:  # type: ignore[type-arg]
    for item in items:
        yield item


def disk(folder: Path) -> dict[bytes, bytes]:
    """The contents of every file below a folder."""
    found: dict[bytes, bytes] = {}
    for at, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(at, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, os.fsencode(folder))] = file.read()
    return found


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    before = asyncio.all_tasks()
    made = Workshop(tmp_path)
    await made.blobs.start()
    await introduce(made.records, ALICE, BOB)
    await made.start()
    yield made
    await made.close()
    await FakeRuntime(made.host).shutdown()
    made.host.trees.close()
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    await asyncio.wait(left, timeout=0.5) if left else None
    assert not [task for task in left if not task.done()], "a task is left behind"
