"""Possession: which chunks somebody may name in a workspace of another's.

Workspaces of one lineage share chunks. A collaborator of one of them must not learn, by naming ids, what the others
hold: of chunks that no revision of the workspace has, only those count that the collaborator sent.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from atoll.domain.chunk_ids import HOLE
from atoll.domain.errors import Corrupt
from atoll.domain.principal import Principal
from atoll.domain.tree import Entry
from atoll.domain.workspace import Revision
from atoll.records.base import Records
from atoll.services.locks import Locks
from atoll.services.workspaces.access import Found
from atoll.services.workspaces.storage.chunks import ChunkStore
from atoll.services.workspaces.storage.manifests import Manifests

PROVED_MAX = 1_000_000  # ids in memory; what is forgotten is sent again
REACHABLE_MAX = 1_000_000  # ids in memory, over all workspaces; what is beyond is looked for each time
KNOWN_S = 600.0  # after which what a workspace's revisions have is looked up anew: some of them are gone by then
LISTED_AT_ONCE = 1_000  # revisions


@dataclass(slots=True)
class Reachable:
    """What revisions of one workspace have, as far as they were looked through."""

    until: float  # on the monotonic clock
    trees: set[str] = field(default_factory=set[str])
    pages: set[bytes] = field(default_factory=set[bytes])
    ids: set[bytes] = field(default_factory=set[bytes])


class Possession:
    """Knows what collaborators sent, and which chunks a workspace's revisions have. An owner may name all."""

    def __init__(self, records: Records, chunks: ChunkStore, manifests: Manifests) -> None:
        self._records = records
        self._chunks = chunks
        self._manifests = manifests
        self._proved: OrderedDict[tuple[str, str], set[bytes]] = OrderedDict()
        self._reachable: OrderedDict[str, Reachable] = OrderedDict()  # by workspace
        self._looking = Locks()

    def prove(self, principal: Principal, found: Found, ids: Iterable[bytes]) -> None:
        """They sent the contents of those."""
        if found.permission is None:
            return
        key = (principal.id, found.workspace.id)
        self._proved.setdefault(key, set()).update(ids)
        self._proved.move_to_end(key)
        while sum(map(len, self._proved.values())) > PROVED_MAX:
            self._proved.popitem(last=False)

    async def unproved(self, principal: Principal, found: Found, ids: Sequence[bytes]) -> set[bytes]:
        """Those that they may not name."""
        left = set(ids) - {HOLE}
        if found.permission is None or not left:
            return set()
        left -= self._proved.get((principal.id, found.workspace.id), set())
        if left:
            async with self._looking.hold(found.workspace.id):  # who asks at the same time gains from it
                left = await self._beyond(found.workspace.id, left)
        return left

    async def _beyond(self, workspace_id: str, left: set[bytes]) -> set[bytes]:
        """Those that no revision of the workspace has, the newest looked through first."""
        known = self._known(workspace_id)
        left = left - known.ids
        if not left:
            return left
        async for revision in self._revisions(workspace_id):
            if revision.tree in known.trees:
                continue
            try:
                left = await self._without(revision, known, left)
            except Corrupt:
                continue  # what cannot be read gives nobody a right
            if not left:
                break
        self._trim()
        return left

    async def _without(self, revision: Revision, known: Reachable, left: set[bytes]) -> set[bytes]:
        """`left` without the chunks of that revision, which `known` knows from then on while there is room."""
        root = await self._manifests.root(revision.lineage, revision.tree)
        new = [page for page in root.pages if page.id not in known.pages]
        whole = True
        async with aclosing(self._manifests.pages(revision.lineage, new)) as pages:
            number = 0
            async for entries in pages:
                ids = await self._chunks.in_thread(_chunks_of, entries)
                left = left - ids
                if len(known.ids) + len(ids) <= REACHABLE_MAX:
                    known.ids |= ids
                    known.pages.add(new[number].id)
                else:
                    whole = False
                number += 1
        if whole:
            known.trees.add(revision.tree)
        return left

    def _known(self, workspace_id: str) -> Reachable:
        known = self._reachable.get(workspace_id)
        if known is None or time.monotonic() >= known.until:
            known = self._reachable[workspace_id] = Reachable(time.monotonic() + KNOWN_S)
        self._reachable.move_to_end(workspace_id)
        return known

    def _trim(self) -> None:
        while sum(len(known.ids) for known in self._reachable.values()) > REACHABLE_MAX and len(self._reachable) > 1:
            self._reachable.popitem(last=False)

    async def _revisions(self, workspace_id: str) -> AsyncIterator[Revision]:
        before = None
        while listed := await self._records.list_revisions(workspace=workspace_id, before=before, limit=LISTED_AT_ONCE):
            for revision in listed:
                yield revision
            before = listed[-1].number


def _chunks_of(entries: list[Entry]) -> set[bytes]:
    return {id for entry in entries for id in entry.chunk_ids()}
