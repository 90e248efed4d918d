"""Refs: what somebody calls a revision (`HEAD~2`, a number, an id, a snapshot, a moment) and which one is meant."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from atoll.domain.errors import Corrupt, InvalidInput, NotFound
from atoll.domain.workspace import Revision, RevisionState, Snapshot, Workspace
from atoll.records.base import Records
from atoll.services.workspaces.access import REF_CHARS_SHOWN

_HEAD = re.compile(r"HEAD(?:~(\d{1,9})?)?", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,15}")
_PAGE = 1000


class Resolved(NamedTuple):
    """A revision and where its tree is read: under a snapshot's own key when that was what somebody named."""

    revision: Revision
    lineage: str
    tree: str
    snapshot: Snapshot | None = None

    def readable(self) -> Resolved:
        """Itself; Corrupt when a verification has found it damaged."""
        if self.revision.state is RevisionState.CORRUPT and self.lineage == self.revision.lineage:
            raise Corrupt(f"revision {self.revision.number} is damaged: it cannot be read or restored")
        return self


class Refs:
    """Resolves refs within one workspace. NotFound `revision not found: <ref>` for all that it does not have."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def resolve(self, workspace: Workspace, ref: str) -> Resolved:
        found = await self._find(workspace, ref)
        if found is None:
            raise NotFound(f"revision not found: {ref[:REF_CHARS_SHOWN]!r}")
        return found

    async def _find(self, workspace: Workspace, ref: str) -> Resolved | None:
        head = _HEAD.fullmatch(ref)
        if head is not None:
            back = 0 if "~" not in ref else int(head[1] or 1)
            return _plain(await self._back(workspace, back))
        if _NUMBER.fullmatch(ref):
            return _plain(await self._records.find_revision(workspace.id, int(ref)))
        if ref.startswith("rev_"):
            revision = await self._records.get_revision(ref)
            return _plain(revision if revision is not None and revision.workspace == workspace.id else None)
        snapshot = await self.snapshot(workspace, ref)
        if snapshot is not None:
            revision = await self._records.get_revision(snapshot.revision)
            return None if revision is None else Resolved(revision, snapshot.lineage, snapshot.tree, snapshot)
        return _plain(await self._at(workspace, ref))

    async def snapshot(self, workspace: Workspace, ref: str) -> Snapshot | None:
        """Of that id or name, in this workspace."""
        if ref.startswith("snap_"):
            found = await self._records.find_snapshot(workspace.owner, ref)
            if found is not None and found.workspace == workspace.id:
                return found
        listed = await self._records.list_snapshots(workspace=workspace.id, limit=10_000)
        return next((one for one in listed if one.name == ref), None)

    async def _back(self, workspace: Workspace, back: int) -> Revision | None:
        """The one that many before the head, of those that are kept."""
        head = await self._records.get_revision(workspace.head)
        while head is not None and back > 0:
            older = await self._records.list_revisions(
                workspace=workspace.id, before=head.number, limit=min(back, _PAGE)
            )
            head = older[-1] if older else None
            back = back - len(older)
        return head

    async def _at(self, workspace: Workspace, ref: str) -> Revision | None:
        """The newest one that is not after the moment."""
        try:
            moment = datetime.fromisoformat(ref)
        except ValueError:
            return None
        if moment.tzinfo is None:
            raise InvalidInput("revision: a moment needs its offset, as in 2026-01-31T12:00:00Z", field="revision")
        before: int | None = None
        while True:
            listed = await self._records.list_revisions(workspace=workspace.id, before=before, limit=_PAGE)
            for revision in listed:
                if revision.created_at <= moment:
                    return revision
            if len(listed) < _PAGE:
                return None
            before = listed[-1].number


def names_a_revision(name: str) -> bool:
    """Whether the text means something by itself, so that a snapshot cannot have it as its name."""
    if _HEAD.fullmatch(name) or _NUMBER.fullmatch(name) or name.startswith(("rev_", "snap_")):
        return True
    try:
        datetime.fromisoformat(name)
    except ValueError:
        return False
    return True


def _plain(revision: Revision | None) -> Resolved | None:
    return None if revision is None else Resolved(revision, revision.lineage, revision.tree)
