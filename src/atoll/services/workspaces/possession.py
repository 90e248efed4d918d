"""Possession: which chunks somebody may name in a workspace of another's.

Workspaces of one lineage share chunks. A collaborator of one of them must not learn, by naming ids, what the others
hold: of chunks that no revision of the workspace has, only those count that the collaborator sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from atoll.domain.chunk_ids import HOLE
from atoll.domain.principal import Principal
from atoll.records.base import Records
from atoll.services.workspaces.access import Found
from atoll.services.workspaces.storage.manifests import Manifests

PROVED_MAX = 1_000_000  # ids in memory; what is forgotten is sent again
REACHABLE_MAX = 1_000_000
LISTED_MAX = 1_000_000


class Possession:
    """Knows what collaborators sent, and which chunks a workspace's revisions have. An owner may name all."""

    def __init__(self, records: Records, manifests: Manifests) -> None:
        self._records = records
        self._manifests = manifests
        self._proved: OrderedDict[tuple[str, str], set[bytes]] = OrderedDict()
        self._reachable: OrderedDict[tuple[str, str], frozenset[bytes]] = OrderedDict()

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
            workspace = found.workspace
            for revision in await self._records.list_revisions(workspace=workspace.id, limit=LISTED_MAX):
                left -= await self._chunks_of(revision.lineage, revision.tree)
                if not left:
                    break
        return left

    async def _chunks_of(self, lineage: str, tree: str) -> frozenset[bytes]:
        known = self._reachable.get((lineage, tree))
        if known is None:
            ids = {id async for entry in self._manifests.entries(lineage, tree) for id in entry.chunk_ids()}
            known = self._reachable[lineage, tree] = frozenset(ids)
            while sum(map(len, self._reachable.values())) > REACHABLE_MAX and len(self._reachable) > 1:
                self._reachable.popitem(last=False)
        self._reachable.move_to_end((lineage, tree))
        return known
