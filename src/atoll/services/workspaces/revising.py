"""Revising: how a workspace's files become a revision: after processes, on stop, daily and when somebody asks.

What did not change costs a scan, and not even that when nobody could have changed it.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from operator import attrgetter
from typing import NamedTuple

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Corrupt, InvalidInput, NotFound, StaleVersion
from atoll.domain.ids import new_id
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry, EntryKind, Root
from atoll.domain.tree_merge import merge
from atoll.domain.workspace import Permission, Reason, Revision, Workspace
from atoll.records.base import Records
from atoll.services.background import Background
from atoll.services.deadline import deadline
from atoll.services.locks import Locks
from atoll.services.workspaces.access import WorkspaceAccess
from atoll.services.workspaces.limits import WorkspaceLimits
from atoll.services.workspaces.mounted import Mounted
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests
from atoll.services.workspaces.trees.reading import Reading, read_tree
from atoll.services.workspaces.trees.stamps import TreeState
from atoll.services.workspaces.trees.working_trees import WorkingTrees
from atoll.services.workspaces.unrecorded import Unrecorded
from atoll.telemetry.spans import spanned

_log = structlog.get_logger()

HOME = b".home"
PAUSES = 10  # a workspace is left alone so many times as long as its last revision took


class Taken(NamedTuple):
    """A workspace as it is stored now, and its head."""

    workspace: Workspace
    head: Revision


class Stored(NamedTuple):
    """A tree whose manifest and chunks are in the store."""

    tree: str
    entries: int
    bytes: int
    stored_bytes: int


class Found(NamedTuple):
    """A working tree as it was found. What is not to be kept is left out of `entries`, whose tree is stored."""

    reading: Reading
    entries: list[Entry]
    stored: Stored


class Revising:
    """Takes revisions; the other parts call `take_held` and `add` under the workspace's lock."""

    def __init__(
        self,
        records: Records,
        access: WorkspaceAccess,
        chunks: ChunkStore,
        manifests: Manifests,
        trees: WorkingTrees,
        mounted: Mounted,
        locks: Locks,
        background: Background,
        unrecorded: Unrecorded,
        limits: WorkspaceLimits,
    ) -> None:
        self._records = records
        self._access = access
        self._chunks = chunks
        self._manifests = manifests
        self._trees = trees
        self._mounted = mounted
        self._locks = locks
        self._background = background
        self._unrecorded = unrecorded
        self._limits = limits
        self._touched: dict[str, asyncio.Task[None]] = {}
        self._slow: dict[str, float] = {}  # workspaces whose revisions take long, and how long, in seconds

    async def ask(self, principal: Principal, ref: str, message: str | None = None) -> Revision:
        """A revision of the state now; the head itself when nothing changed. Needs `write`."""
        found = await self._access.find(principal, ref, Permission.WRITE)
        self.check_message(message)
        return await self.take(found.workspace.id, Reason.ASKED, principal.id, message)

    @spanned("workspace.revise")
    async def take(
        self, workspace_id: str, reason: Reason, actor: str = "system", message: str | None = None
    ) -> Revision:
        """The head, after a revision of what changed since. NotFound when the workspace is gone."""
        async with self._locks.hold(workspace_id):
            workspace = await self._access.current(workspace_id)
            return (await self.take_held(workspace, reason, actor, message)).head

    async def take_held(
        self, workspace: Workspace, reason: Reason, actor: str = "system", message: str | None = None
    ) -> Taken:
        """As `take`, for a caller that has the lock."""
        for _ in range(self._limits.take_tries):
            head = await self._trees.head(workspace)
            if workspace.tree_id is None or await self._trees.is_clean(workspace, head):
                self._unrecorded.clear(workspace.id)
                return Taken(workspace, head)
            workspace = await self._trees.recall(workspace)
            if workspace.tree_id is None:
                self._unrecorded.clear(workspace.id)
                return Taken(workspace, head)
            try:
                taken = await self._look(workspace, workspace.tree_id, head, reason, actor, message)
            except StaleVersion:  # another process was faster
                workspace = await self._access.current(workspace.id)
                continue
            except NotFound:  # deleted under us
                raise
            except AtollError as error:
                await self._unrecorded.tell(workspace, error)
                raise
            self._unrecorded.clear(workspace.id)
            return taken
        raise StaleVersion()

    async def _look(
        self, workspace: Workspace, tree_id: str, head: Revision, reason: Reason, actor: str, message: str | None
    ) -> Taken:
        state = await self._trees.state(tree_id)
        reading, before, stored = await self.read(tree_id, workspace.lineage, state, head.tree)
        entries = before
        if state is not None and state.tree not in (head.tree, stored.tree) and stored.tree != head.tree:
            # The head went on without the tree: a change of it was cut short. What both changed comes together.
            base = await self._base(workspace.lineage, state.tree)
            theirs = await self._manifests.load(workspace.lineage, head.tree)
            entries = (await asyncio.to_thread(merge, base, entries, theirs, f"r{head.number}")).entries
            stored = await self.store(workspace.lineage, entries)
        elif state is not None and state.tree == stored.tree != head.tree:
            entries = await self._manifests.load(workspace.lineage, head.tree)
            stored = Stored(head.tree, head.entries, head.bytes, 0)
        taken = Taken(workspace, head)
        if stored.tree != head.tree:
            crash.point("workspaces.take.stored")
            taken = await self.add(workspace, head, stored, reason, actor, message)
            crash.point("workspaces.take.recorded")
        now = TreeState(stored.tree, reading.known, reading.scanned)
        if entries is not before:
            await self._trees.mark(tree_id, workspace)
            if not await self.followed(workspace, before, entries, stored.tree):
                return taken
        elif state is None or reading.changed or state.tree != stored.tree:
            await self._trees.save(tree_id, now)
        else:
            self._trees.remember(tree_id, now)
        if not self._mounted.writable(workspace.id):
            await self._trees.unmark(tree_id)
        return taken

    async def followed(self, workspace: Workspace, before: list[Entry], after: list[Entry], tree: str) -> bool:
        """Whether the working tree, which had the entries `before`, has those of the head now. Where it could not be
        changed (it is full, or somebody inside is in the way) the next look brings both together; the mark stays."""
        try:
            await self._trees.follow(workspace, before, after, tree)
        except AtollError as error:
            _log.warning("workspace.tree_lags", workspace_id=workspace.id, error=error.message)
            return False
        return True

    async def _base(self, lineage: str, tree: str) -> list[Entry]:
        try:
            return await self._manifests.load(lineage, tree)
        except (Corrupt, NotFound):
            return []  # its revision is gone by now; then both sides count as new, and both are kept

    async def read(self, tree_id: str, lineage: str, state: TreeState | None, like: str | None) -> Found:
        """A tree as it is now, stored. `like` is the tree that it is thought to equal where its state does not tell;
        None for one that no sandbox had."""
        if state is not None:
            like = state.tree
        async with deadline(self._limits.tree_s, "reading the working tree"):
            keeper = await self._trees.keeper_of(tree_id)
            async with self._chunks.writer(lineage) as writer:
                reading = await read_tree(keeper, state, writer)
                entries = reading.entries
                has_home = like is not None and await self._has_new_home(lineage, like, entries)
                if has_home:
                    entries = [entry for entry in entries if entry.path != HOME]
                if state is not None and not reading.changed:
                    return Found(reading, entries, Stored(state.tree, len(entries), _bytes(entries), 0))
                if has_home and like is not None:
                    before = await self._manifests.load(lineage, like)
                    if _but_root_time(entries) == _but_root_time(before):
                        entries = before
                tree, root = await self._manifests.store(writer, entries)
        return Found(reading, entries, _stored(tree, root, writer.stored_bytes))

    async def _has_new_home(self, lineage: str, like: str, entries: list[Entry]) -> bool:
        """Whether there is an empty `.home`, that the node makes in a sandbox's first workspace, and not in `like`."""
        at = bisect_left(entries, HOME, key=attrgetter("path"))
        found, inside = entries[at : at + 1], entries[at + 1 : at + 2]
        if not found or found[0].path != HOME or found[0].kind is not EntryKind.DIRECTORY:
            return False
        if inside and inside[0].path.startswith(HOME + b"/"):
            return False
        try:
            return await self._manifests.find(lineage, like, HOME) is None
        except (Corrupt, NotFound):
            return False

    async def store(self, lineage: str, entries: list[Entry]) -> Stored:
        """A manifest of entries whose chunks are in the store."""
        async with self._chunks.writer(lineage) as writer:
            tree, root = await self._manifests.store(writer, entries)
        return _stored(tree, root, writer.stored_bytes)

    async def add(
        self,
        workspace: Workspace,
        head: Revision,
        stored: Stored,
        reason: Reason,
        actor: str,
        message: str | None = None,
        *,
        merged: str | None = None,
        parent: str | None = None,
    ) -> Taken:
        """Make it the new head; `parent` is what an undo goes back to, the present head unless given. StaleVersion when
        the workspace changed meanwhile."""
        revision = Revision(
            id=new_id("rev"),
            workspace=workspace.id,
            number=head.number + 1,
            lineage=workspace.lineage,
            tree=stored.tree,
            parent=parent or head.id,
            reason=reason,
            actor=actor,
            created_at=self._access.clock(),
            entries=stored.entries,
            bytes=stored.bytes,
            stored_bytes=stored.stored_bytes,
            message=message,
            merged=merged,
        )
        event = self._access.event(
            "workspace.revised", workspace, actor, revision=revision.id, number=revision.number, reason=reason.value
        )
        taken = Taken(await self._records.add_revision(revision, workspace, event), revision)
        self._access.changed(workspace.id)
        return taken

    def check_message(self, message: str | None) -> None:
        if message is not None and len(message) > self._limits.text_chars_max:
            raise InvalidInput(f"message must be at most {self._limits.text_chars_max} characters", field="message")

    # without being asked

    def touched(self, workspace_id: str, reason: Reason = Reason.PROCESS) -> None:
        """Somebody may have changed files: a revision follows in a moment, one for a burst of such calls."""
        if reason in self._limits.automatic and workspace_id not in self._touched:
            self._touched[workspace_id] = self._background.spawn(
                self._after_touch(workspace_id, reason), f"revise {workspace_id}"
            )

    async def _after_touch(self, workspace_id: str, reason: Reason) -> None:
        try:
            await asyncio.sleep(max(self._limits.touched_delay_s, PAUSES * self._slow.pop(workspace_id, 0.0)))
        finally:
            self._touched.pop(workspace_id, None)
        began = time.monotonic()
        await self.automatic(workspace_id, reason)
        taken_s = time.monotonic() - began
        if taken_s * PAUSES > self._limits.touched_delay_s:
            self._slow[workspace_id] = taken_s

    async def automatic(self, workspace_id: str, reason: Reason) -> None:
        """A revision for that reason unless it is turned off; a fault is logged: the mark stays, the tree keeps all."""
        try:
            workspace = await self._access.current(workspace_id)
            if reason in self._limits.automatic and (workspace.automatic or reason is Reason.STOP):
                await self.take(workspace_id, reason)
        except NotFound:
            pass
        except AtollError as error:
            _log.warning("workspace.unrevised", workspace_id=workspace_id, reason=reason, error=error.message)


def _stored(tree: str, root: Root, stored_bytes: int) -> Stored:
    return Stored(tree, root.entries, root.bytes, stored_bytes)


def _but_root_time(entries: list[Entry]) -> list[Entry]:
    return [entry._replace(mtime_ns=0) for entry in entries[:1]] + entries[1:]


def _bytes(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)
