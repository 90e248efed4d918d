"""Batches: changes of one workspace's files that came while others were made go in together.

Each waits for the workspace's lock. Whoever gets it does what waits by then, in one go and with one write to the disk:
so a client with many connections does not wait for as many of them.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from atoll.domain import crash
from atoll.domain.errors import AtollError, Conflict
from atoll.domain.tree import Entry, EntryKind
from atoll.domain.workspace import Reason, Revision, Workspace
from atoll.services.deadline import deadline
from atoll.services.objects.names import key_of
from atoll.services.objects.placing import Ground, Planned, steps
from atoll.services.objects.spool import Spool
from atoll.services.workspaces.parts import Parts


class NotThat(Conflict):
    """The object is not, or not any more, the one that the request is about."""


@dataclass(frozen=True, slots=True)
class Placing:
    """How an upload is to stand: what is None is as it was, or as usual."""

    mtime_ns: int | None = None
    mode: int | None = None
    generation: int | None = None  # of the object that it may replace, or remove; 0: of none


@dataclass(eq=False, slots=True)
class Change:
    """One that waits: an upload, or without one a removal; `done` is the entry that stands then."""

    path: bytes
    placing: Placing
    spool: Spool | None = None
    done: asyncio.Future[Entry | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batches:
    """Of all workspaces."""

    def __init__(self, parts: Parts, bytes_max: int) -> None:
        self._parts = parts
        self._bytes_max = bytes_max  # of an object
        self._waiting: dict[str, list[Change]] = {}

    async def make(self, workspace_id: str, change: Change) -> Entry | None:
        """The entry that stands then. NoObject, NotThat, Conflict; errors of the keeper, and of the workspace."""
        waiting = self._waiting.setdefault(workspace_id, [])
        waiting.append(change)
        try:
            async with self._parts.locks.hold(workspace_id):
                if not change.done.done():
                    batch = self._waiting.pop(workspace_id, [])
                    try:
                        await self._make_all(workspace_id, batch)
                    finally:
                        left = [one for one in batch if not one.done.done() and one is not change]
                        if left:  # this one was cut short: the others do it themselves
                            self._waiting.setdefault(workspace_id, []).extend(left)
        finally:
            await self._settled(workspace_id, change)
        return change.done.result()

    async def _settled(self, workspace_id: str, change: Change) -> None:
        """It waits no more; what somebody else is just reading of it stays until that is over."""
        waiting = self._waiting.get(workspace_id, [])
        if change in waiting:
            waiting.remove(change)
            if not waiting:
                del self._waiting[workspace_id]
            change.done.cancel()
        elif not change.done.done():
            async with self._parts.locks.hold(workspace_id):
                change.done.cancel()
        if change.done.done() and not change.done.cancelled():
            change.done.exception()  # heard of, also where nobody waits for it any more

    async def _make_all(self, workspace_id: str, batch: list[Change]) -> None:
        """Each gets its entry, or its error."""
        try:
            workspace = await self._parts.access.current(workspace_id)
            if any(one.placing.generation is not None for one in batch):
                workspace, head = await self._parts.revising.take_held(workspace, Reason.PROCESS)
                batch = [one for one in batch if await self._is_that(head, one)]
            workspace = await self._parts.trees.open(workspace)
            assert workspace.tree_id is not None
            async with deadline(self._parts.limits.tree_s, "writing into the working tree"):
                planned = await self._planned(workspace, batch) if batch else []
                if planned:
                    await self._parts.trees.mark(workspace.tree_id, workspace)
                    crash.point("objects.put.marked")
                    try:
                        await self._apply(workspace, planned)
                    finally:
                        self._parts.revising.touched(workspace_id)
        except AtollError as error:
            for one in batch:
                if not one.done.done():
                    one.done.set_exception(error)

    async def _is_that(self, head: Revision, change: Change) -> bool:
        """Whether the object is the one that it is about; if not, that is its error."""
        wanted = change.placing.generation
        if wanted is None:
            return True
        entry = await file_at(self._parts, head, change.path, self._bytes_max)
        if wanted == (0 if entry is None else generation_of(entry)):
            return True
        change.done.set_exception(NotThat())
        return False

    async def _planned(self, workspace: Workspace, batch: list[Change]) -> list[tuple[Change, Planned]]:
        """Those that can be made. One with a condition comes alone: what is before it would change what it is about."""
        ground = Ground(await self._parts.trees.keeper(workspace))
        await ground.look(one.path for one in batch)
        planned: list[tuple[Change, Planned]] = []
        touched: set[bytes] = set()
        for one in batch:
            try:
                if one.placing.generation is not None and one.path in touched:
                    raise NotThat
                planned.append((one, await self._plan(ground, one)))
                touched.add(one.path)
            except AtollError as error:
                one.done.set_exception(error)
        return planned

    async def _plan(self, ground: Ground, change: Change) -> Planned:
        if change.spool is None:
            return ground.remove(change.path)
        mtime_ns = change.placing.mtime_ns
        if mtime_ns is None:
            mtime_ns = int(self._parts.access.clock().timestamp() * 10**9)
        return await ground.write(change.path, change.placing.mode, mtime_ns, change.spool)

    async def _apply(self, workspace: Workspace, planned: list[tuple[Change, Planned]]) -> None:
        keeper = await self._parts.trees.keeper(workspace)
        try:
            await keeper.apply(steps([one for _, one in planned]))
            failed: AtollError | None = None
        except AtollError as error:
            failed = error
        crash.point("objects.put.written")
        for change, one in planned:
            if failed is not None and len(planned) > 1:
                try:  # whose fault it was: each by itself
                    await keeper.apply(steps([one]))
                except AtollError as error:
                    change.done.set_exception(error)
                    continue
            elif failed is not None:
                raise failed
            change.done.set_result(one.entry)


async def file_at(parts: Parts, revision: Revision, path: bytes, bytes_max: int) -> Entry | None:
    """The file at a path that is an object, whichever of its names that is. Larger ones are none: holes cost nothing,
    and reading them does."""
    entry = await parts.manifests.find(revision.lineage, revision.tree, path)
    if entry is None or key_of(entry) is None:
        return None
    file = await followed(parts, revision, entry)
    return None if file is None or file.size > bytes_max else file


async def followed(parts: Parts, revision: Revision, entry: Entry) -> Entry | None:
    """The file itself, of a further name of it."""
    if entry.kind is not EntryKind.HARDLINK:
        return entry
    file = await parts.manifests.find(revision.lineage, revision.tree, entry.target)
    return None if file is None else file._replace(path=entry.path)


def generation_of(entry: Entry) -> int:
    """A number that changes with a file's contents and time."""
    seen = b"%d:%d:%b" % (entry.mtime_ns, entry.size, entry.chunks)
    return int.from_bytes(hashlib.blake2b(seen, digest_size=8).digest(), "big") >> 1 or 1
