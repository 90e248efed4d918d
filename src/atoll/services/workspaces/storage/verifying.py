"""Verifying: every byte of a workspace's revisions and snapshots is read; what cannot be read is marked, and told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from atoll.domain.errors import AtollError, Corrupt, NotFound
from atoll.domain.event import Event
from atoll.domain.tree import Entry, Page, text
from atoll.domain.workspace import Revision, RevisionState, Snapshot, Workspace
from atoll.services.locks import Locks
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests

FINDINGS_MAX = 1_000  # that a report names
LISTED_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be read. `path` None: the tree itself."""

    message: str
    revision: str | None = None
    snapshot: str | None = None
    path: str | None = None


@dataclass(slots=True)
class Report:
    """What was read, each chunk once, and what is damaged."""

    revisions: int = 0
    snapshots: int = 0
    chunks: int = 0
    bytes: int = 0
    corrupt: list[Finding] = field(default_factory=list[Finding])
    truncated: bool = False  # there is more than `corrupt` names


@dataclass(slots=True)
class _Checked:
    """What is known of a lineage's chunks and pages so far."""

    good: set[bytes] = field(default_factory=set[bytes])
    bad: dict[bytes, str] = field(default_factory=dict[bytes, str])
    pages: dict[bytes, list[tuple[str | None, str]]] = field(default_factory=dict[bytes, list[tuple[str | None, str]]])


class Verifier:
    """Reads everything and says what is damaged."""

    def __init__(self, chunks: ChunkStore, manifests: Manifests, locks: Locks | None = None) -> None:
        self._chunks = chunks
        self._records = chunks.records
        self._manifests = manifests
        self._locks = locks or Locks()

    async def verify(self, workspace: Workspace, actor: str = "system") -> Report:
        """Read all revisions and snapshots; mark those revisions that are damaged, and those that are whole again.

        A revision's state changes with an event `revision.corrupt` or `revision.repaired`. Unavailable when the
        blobs are down: that says nothing of what is in them. NotFound when the workspace is deleted meanwhile; a
        revision or a snapshot that goes meanwhile is not damaged.
        """
        report = Report()
        checked: dict[str, _Checked] = {}
        trees: dict[tuple[str, str], list[tuple[str | None, str]]] = {}

        async def damage(lineage: str, tree: str) -> list[tuple[str | None, str]]:
            if (lineage, tree) not in trees:
                trees[lineage, tree] = await self._tree(lineage, tree, checked.setdefault(lineage, _Checked()), report)
            return trees[lineage, tree]

        for revision in await self._records.list_revisions(workspace=workspace.id, limit=LISTED_MAX):
            found = await damage(revision.lineage, revision.tree)
            if found and not await self._is_there(workspace, revision):
                continue
            report.revisions += 1
            _tell(report, found, revision=revision.id)
            await self.mark(workspace, revision, found[0][1] if found else None, actor)
        for snapshot in await self._records.list_snapshots(workspace=workspace.id, limit=LISTED_MAX):
            found = await damage(snapshot.lineage, snapshot.tree)
            if found and not await self._is_there(workspace, snapshot):
                continue
            report.snapshots += 1
            _tell(report, found, snapshot=snapshot.id)
        return report

    async def _is_there(self, workspace: Workspace, kept: Revision | Snapshot) -> bool:
        """Whether the records still know it, once a deletion under way is through: its key goes before its record.
        NotFound when its workspace is gone."""
        async with self._locks.hold(workspace.id):
            current = await self._records.get_workspace(workspace.id)
            if current is None or current.deleted_at is not None:
                raise NotFound(f"workspace not found: {workspace.id!r}")
            if isinstance(kept, Snapshot):
                return await self._records.find_snapshot(kept.owner, kept.id) is not None
            return await self._records.get_revision(kept.id) is not None

    async def mark(self, workspace: Workspace, revision: Revision, message: str | None, actor: str = "system") -> None:
        """Store that a revision is damaged (the message says how), or with None that it is whole; an event if new."""
        state = RevisionState.READY if message is None else RevisionState.CORRUPT
        if revision.state is state:
            return
        event = Event(
            "revision.repaired" if message is None else "revision.corrupt",
            workspace.id,
            workspace.owner,
            actor,
            outcome="ok" if message is None else "failed",
            detail={"revision": revision.id, "number": revision.number} | ({"message": message} if message else {}),
        )
        await self._records.set_revision_state(revision.id, state, event)

    async def _tree(self, lineage: str, tree: str, checked: _Checked, report: Report) -> list[tuple[str | None, str]]:
        """(path or None, message) of each thing in a tree that cannot be read."""
        try:
            return await self._pages(lineage, tree, checked, report)
        except NotFound as error:  # its key is gone
            return [(None, error.message)]

    async def _pages(self, lineage: str, tree: str, checked: _Checked, report: Report) -> list[tuple[str | None, str]]:
        await self._check(lineage, [bytes.fromhex(tree)], checked, report)
        if (message := checked.bad.get(bytes.fromhex(tree))) is not None:
            return [(None, message)]
        try:
            root = await self._manifests.root(lineage, tree)
        except AtollError as error:
            return [(None, error.message)]
        found: list[tuple[str | None, str]] = []
        for page in root.pages:
            if page.id not in checked.pages:
                checked.pages[page.id] = await self._page(lineage, page, checked, report)
            found += checked.pages[page.id]
        return found

    async def _page(self, lineage: str, page: Page, checked: _Checked, report: Report) -> list[tuple[str | None, str]]:
        await self._check(lineage, [page.id], checked, report)
        if (message := checked.bad.get(page.id)) is not None:
            return [(None, f"{page.entries} entries from {text(page.first)!r} on are lost: {message}")]
        entries: list[Entry] = []
        try:
            async for found_entries in self._manifests.pages(lineage, [page]):
                entries = found_entries
        except Corrupt as error:
            return [(None, error.message)]
        await self._check(lineage, (chunk for entry in entries for chunk in entry.chunk_ids()), checked, report)
        found: list[tuple[str | None, str]] = []
        for entry in entries if checked.bad else ():
            lost = next((checked.bad[chunk] for chunk in entry.chunk_ids() if chunk in checked.bad), None)
            if lost is not None:
                found.append((text(entry.path), lost))
        return found

    async def _check(self, lineage: str, ids: Iterable[bytes], checked: _Checked, report: Report) -> None:
        new = [chunk for chunk in dict.fromkeys(ids) if chunk not in checked.good and chunk not in checked.bad]
        async for chunk, found in self._chunks.check(lineage, new):
            report.chunks += 1
            if isinstance(found, Corrupt):
                checked.bad[chunk] = found.message
            else:
                checked.good.add(chunk)
                report.bytes += found


def _tell(
    report: Report, found: list[tuple[str | None, str]], *, revision: str | None = None, snapshot: str | None = None
) -> None:
    room = FINDINGS_MAX - len(report.corrupt)
    report.corrupt += [Finding(message, revision, snapshot, path) for path, message in found[:room]]
    report.truncated = report.truncated or len(found) > room
