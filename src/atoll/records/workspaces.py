"""The part of the records contract about workspaces; `Records` includes it. See `Records` for what holds of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from atoll.domain.event import Event
from atoll.domain.workspace import (
    Lineage,
    Pack,
    Permission,
    Revision,
    RevisionState,
    Share,
    Snapshot,
    StoredChunk,
    Workspace,
)


@dataclass(frozen=True, slots=True)
class SharedWorkspace:
    """A workspace and what the asker may do with it; None: the asker owns it."""

    workspace: Workspace
    permission: Permission | None


class WorkspaceRecords(ABC):
    """Lineages, workspaces, revisions, snapshots, shares, and where chunks lie."""

    # lineages

    @abstractmethod
    async def get_lineage(self, lineage_id: str) -> Lineage | None: ...

    @abstractmethod
    async def list_lineages(self) -> list[Lineage]:
        """Oldest first."""

    @abstractmethod
    async def add_lineage(self, lineage: Lineage) -> None:
        """Insert one for a snapshot's own key. Conflict when the id exists."""

    @abstractmethod
    async def swap_lineage_key(self, lineage_id: str, old: bytes, new: bytes | None, vault: str, event: Event) -> None:
        """Store the key wrapped anew, or None: shredded. StaleVersion when the stored one is not `old`."""

    # workspaces

    @abstractmethod
    async def add_workspace(
        self,
        workspace: Workspace,
        revision: Revision,
        lineage: Lineage | None,
        event: Event,
        *,
        quota: int | None = None,
    ) -> None:
        """Insert it with its first revision and, unless it is a fork, its lineage.

        Conflict when its owner has a workspace of that name that is not deleted; QuotaExceeded when its owner has
        `quota` of them already, counted in the same atomic step. NotFound when the lineage of a fork is gone or
        shredded.
        """

    @abstractmethod
    async def swap_workspace(self, workspace: Workspace, event: Event | None) -> Workspace:
        """As `swap_sandbox`. Conflict when its name is another's by now."""

    @abstractmethod
    async def get_workspace(self, workspace_id: str) -> Workspace | None:
        """Deleted ones too."""

    @abstractmethod
    async def find_workspace(self, owner: str, name: str) -> Workspace | None:
        """One that is not deleted."""

    @abstractmethod
    async def list_workspaces(
        self,
        *,
        owner: str | tuple[str, ...] | None = None,
        deleted: bool | None = False,
        with_tree: bool = False,
        limit: int = 1000,
    ) -> list[Workspace]:
        """Newest first, those of one owner or of any of several. `deleted` None lists both; `with_tree` only those that
        have a working tree."""

    @abstractmethod
    async def delete_workspace_records(self, workspace_id: str) -> None:
        """Forget a deleted workspace with its revisions, snapshots and shares; no error when it is gone. Conflict when
        it is not deleted."""

    # revisions

    @abstractmethod
    async def add_revision(self, revision: Revision, workspace: Workspace, event: Event) -> Workspace:
        """Insert the revision and make it the head of `workspace`, a compare-and-set on `workspace.version`.

        Returns the workspace as it is stored now, with every field as given but `head` and `version`. StaleVersion
        when it changed meanwhile, Conflict when it has a revision of that number, NotFound when it or the revision's
        lineage is gone, or the lineage was shredded.
        """

    @abstractmethod
    async def get_revision(self, revision_id: str) -> Revision | None: ...

    @abstractmethod
    async def find_revision(self, workspace_id: str, number: int) -> Revision | None: ...

    @abstractmethod
    async def list_revisions(
        self, *, workspace: str | None = None, lineage: str | None = None, before: int | None = None, limit: int = 1000
    ) -> list[Revision]:
        """Newest first, by number; `before` is a number, exclusive.

        A page never ends within a number: of a lineage's workspaces several may have it, and then it is longer than
        `limit`.
        """

    @abstractmethod
    async def set_revision_state(self, revision_id: str, state: RevisionState, event: Event) -> None:
        """NotFound."""

    @abstractmethod
    async def delete_revisions(self, revision_ids: Collection[str], event: Event) -> int:
        """Forget them; never a workspace's head nor one that a snapshot names. How many went; none, no event."""

    # snapshots

    @abstractmethod
    async def add_snapshot(self, snapshot: Snapshot, event: Event) -> None:
        """Insert. Conflict when its owner has that id, or its workspace that name, already. NotFound when its revision
        or its lineage is gone, or the lineage was shredded."""

    @abstractmethod
    async def find_snapshot(self, owner: str, snapshot_id: str) -> Snapshot | None: ...

    @abstractmethod
    async def list_snapshots(
        self, *, owner: str | None = None, workspace: str | None = None, lineage: str | None = None, limit: int = 1000
    ) -> list[Snapshot]:
        """Newest first."""

    @abstractmethod
    async def delete_snapshot(self, owner: str, snapshot_id: str, event: Event) -> bool:
        """Whether it was there; no event if not."""

    # shares

    @abstractmethod
    async def put_share(self, share: Share, event: Event) -> None:
        """Insert or replace. NotFound when the workspace is gone."""

    @abstractmethod
    async def delete_share(self, workspace_id: str, principal: str, event: Event) -> bool:
        """Whether it was there; no event if not."""

    @abstractmethod
    async def get_share(self, workspace_id: str, principal: str) -> Share | None: ...

    @abstractmethod
    async def list_shares(self, workspace_id: str) -> list[Share]:
        """By principal."""

    @abstractmethod
    async def list_shared_workspaces(self, principal: str, limit: int = 1000) -> list[SharedWorkspace]:
        """Those of others that `principal` is a collaborator of, newest first, none deleted."""

    # packs and chunks

    @abstractmethod
    async def add_pack(self, pack: Pack, chunks: Sequence[StoredChunk], *, quota: int | None = None) -> None:
        """Insert a pack whose object is stored, with its chunks. A chunk that its lineage has already stays where
        it is. No event: nothing refers to it yet. NotFound when its lineage is gone or shredded; Conflict when the pack
        exists; QuotaExceeded when its lineage's owner would have more than `quota` stored bytes, counted in the same
        atomic step.

        A power cut may take it back until the next revision is added: all else about workspaces outlives one at once.
        """

    @abstractmethod
    async def stored_bytes(self, owner: str) -> int:
        """Bytes of all packs of the owner's lineages. A sum that is kept, not a scan."""

    @abstractmethod
    async def list_stored(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Who has anything stored, and how many bytes, in order of their ids."""

    @abstractmethod
    async def find_chunks(self, lineage: str, ids: Collection[bytes]) -> dict[bytes, StoredChunk]:
        """Those of `ids` that the lineage has."""

    @abstractmethod
    async def list_chunks(self, lineage: str, *, after: bytes = b"", limit: int = 10_000) -> list[StoredChunk]:
        """By id, those after `after`."""

    @abstractmethod
    async def list_packs(self, lineage: str | None = None, *, after: str = "", limit: int = 10_000) -> list[Pack]:
        """By id, those after `after`."""

    @abstractmethod
    async def move_chunks(self, pack: Pack, chunks: Sequence[StoredChunk], removed: Collection[str]) -> None:
        """In one transaction: `pack` with `chunks` is there, those chunks lie in it, the packs `removed` are gone with
        what they still held. The same again changes nothing. NotFound when the lineage is gone or shredded."""

    @abstractmethod
    async def refresh_packs(self, pack_ids: Collection[str], at: datetime) -> None:
        """Move `created_at` of those that exist forward to `at`: somebody found chunks in them and will use them.

        Once this has returned, `delete_chunks` with an earlier `stored_before` takes nothing from them.
        """

    @abstractmethod
    async def delete_chunks(self, lineage: str, ids: Collection[bytes], stored_before: datetime) -> int:
        """Forget them, but for those in packs made at or after that moment; how many went.

        It takes turns with `refresh_packs` on a pack (PostgreSQL: rows of packs are locked before chunks are deleted).
        """

    @abstractmethod
    async def delete_packs(self, pack_ids: Collection[str]) -> int:
        """Forget packs, and whatever they hold, a few packs in each transaction; how many went."""

    @abstractmethod
    async def delete_lineage(self, lineage_id: str) -> None:
        """Forget it with its packs and chunks; no error when it is gone. Conflict when a workspace, revision or
        snapshot refers to it.

        In several transactions, its key first: one that was cut short is done by calling again.
        """
