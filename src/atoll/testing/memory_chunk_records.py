"""Lineages, packs and chunks of MemoryRecords, in dictionaries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from atoll.domain.errors import Conflict, NotFound, QuotaExceeded, StaleVersion
from atoll.domain.event import Event
from atoll.domain.workspace import Lineage, Pack, StoredChunk
from atoll.records.workspaces import WorkspaceRecords


class MemoryChunkRecords(WorkspaceRecords):
    """Nothing is awaited inside a method, so each is one transaction."""

    def __init__(self) -> None:
        self._lineages: dict[str, Lineage] = {}
        self._packs: dict[str, Pack] = {}
        self._chunks: dict[str, dict[bytes, StoredChunk]] = {}  # of each lineage

    @abstractmethod
    def _check(self) -> None:
        """Unavailable while the records are down."""

    @abstractmethod
    def _log(self, event: Event | None) -> None:
        """Keep the event."""

    @abstractmethod
    def _hold_owner(self, owner: str) -> None:
        """NotFound for a group that does not exist."""

    @abstractmethod
    def _is_used(self, lineage_id: str) -> bool:
        """Whether a workspace, revision or snapshot refers to it."""

    # lineages

    async def get_lineage(self, lineage_id: str) -> Lineage | None:
        self._check()
        return self._lineages.get(lineage_id)

    async def list_lineages(self) -> list[Lineage]:
        self._check()
        return sorted(self._lineages.values(), key=lambda lineage: (lineage.created_at, lineage.id))

    async def add_lineage(self, lineage: Lineage) -> None:
        self._check()
        if lineage.id in self._lineages:
            raise Conflict(f"lineage {lineage.id} exists already")
        self._lineages[lineage.id] = lineage

    async def swap_lineage_key(self, lineage_id: str, old: bytes, new: bytes | None, vault: str, event: Event) -> None:
        self._check()
        stored = self._lineages.get(lineage_id)
        if stored is None:
            raise NotFound(f"lineage {lineage_id} does not exist")
        if stored.key != old:
            raise StaleVersion()
        self._lineages[lineage_id] = replace(stored, key=new, vault=vault)
        self._log(event)

    async def delete_lineage(self, lineage_id: str) -> None:
        self._check()
        if self._is_used(lineage_id):
            raise Conflict(f"lineage {lineage_id} is in use")
        self._forget_packs({pack.id for pack in self._packs.values() if pack.lineage == lineage_id})
        self._lineages.pop(lineage_id, None)

    # packs and chunks

    async def add_pack(self, pack: Pack, chunks: Sequence[StoredChunk], *, quota: int | None = None) -> None:
        self._check()
        owner = self._hold_lineage(pack.lineage)
        if pack.id in self._packs:
            raise Conflict(f"pack {pack.id} exists already")
        if quota is not None and pack.bytes and self._stored_by(owner) + pack.bytes > quota:
            raise QuotaExceeded(f"{owner} has {self._stored_by(owner)} of {quota} bytes stored")
        self._packs[pack.id] = pack
        for chunk in chunks:
            self._of(pack.lineage).setdefault(chunk.id, replace(chunk, pack=pack.id))

    async def stored_bytes(self, owner: str) -> int:
        self._check()
        return self._stored_by(owner)

    async def list_stored(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        self._check()
        owners = sorted({self._lineages[pack.lineage].owner for pack in self._packs.values()})
        return [(one, size) for one in owners if one > after and (size := self._stored_by(one))][:limit]

    async def find_chunks(self, lineage: str, ids: Collection[bytes]) -> dict[bytes, StoredChunk]:
        self._check()
        mine = self._of(lineage)
        return {chunk_id: mine[chunk_id] for chunk_id in ids if chunk_id in mine}

    async def list_chunks(self, lineage: str, *, after: bytes = b"", limit: int = 10_000) -> list[StoredChunk]:
        self._check()
        mine = self._of(lineage)
        return [mine[chunk_id] for chunk_id in sorted(mine) if chunk_id > after][:limit]

    async def list_packs(self, lineage: str | None = None, *, after: str = "", limit: int = 10_000) -> list[Pack]:
        self._check()
        found = [self._packs[pack_id] for pack_id in sorted(self._packs) if pack_id > after]
        return [pack for pack in found if lineage is None or pack.lineage == lineage][:limit]

    async def move_chunks(self, pack: Pack, chunks: Sequence[StoredChunk], removed: Collection[str]) -> None:
        self._check()
        self._hold_lineage(pack.lineage)
        self._packs.setdefault(pack.id, pack)
        self._of(pack.lineage).update({chunk.id: replace(chunk, pack=pack.id) for chunk in chunks})
        self._forget_packs(removed)

    async def refresh_packs(self, pack_ids: Collection[str], at: datetime) -> None:
        self._check()
        for pack_id in self._packs.keys() & set(pack_ids):
            pack = self._packs[pack_id]
            self._packs[pack_id] = replace(pack, created_at=max(pack.created_at, at))

    async def delete_chunks(self, lineage: str, ids: Collection[bytes], stored_before: datetime) -> int:
        self._check()
        mine = self._of(lineage)
        old = {pack.id for pack in self._packs.values() if pack.created_at < stored_before}
        going = [chunk_id for chunk_id in set(ids) if chunk_id in mine and mine[chunk_id].pack in old]
        for chunk_id in going:
            del mine[chunk_id]
        return len(going)

    async def delete_packs(self, pack_ids: Collection[str]) -> int:
        self._check()
        return self._forget_packs(pack_ids)

    def _of(self, lineage: str) -> dict[bytes, StoredChunk]:
        return self._chunks.setdefault(lineage, {})

    def _forget_packs(self, pack_ids: Collection[str]) -> int:
        going = self._packs.keys() & set(pack_ids)
        for mine in self._chunks.values():
            for chunk_id in [chunk.id for chunk in mine.values() if chunk.pack in going]:
                del mine[chunk_id]
        for pack_id in going:
            del self._packs[pack_id]
        return len(going)

    def _stored_by(self, owner: str) -> int:
        return sum(pack.bytes for pack in self._packs.values() if self._lineages[pack.lineage].owner == owner)

    def _hold_lineage(self, lineage_id: str) -> str:
        stored = self._lineages.get(lineage_id)
        if stored is None or stored.key is None:
            raise NotFound(f"lineage {lineage_id} does not exist, or was shredded")
        return stored.owner
