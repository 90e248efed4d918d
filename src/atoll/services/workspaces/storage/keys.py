"""Keys: the data key of each lineage, wrapped by the vault in the records, unwrapped here for a short while."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import NamedTuple

from atoll.domain.errors import NotFound, Unavailable
from atoll.domain.event import Event
from atoll.domain.workspace import Lineage
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.workspaces.storage.sealing import KEY_BYTES
from atoll.vaults.base import Vault

CACHED_MAX = 1_024
CACHED_S = 60.0  # how long another process may still read what this one has shredded


class DataKey(NamedTuple):
    key: bytes
    owner: str  # of the lineage


class LineageKeys:
    """Makes, unwraps and destroys data keys."""

    def __init__(self, records: Records, vault: Vault, clock: Clock = utc_now) -> None:
        self._records = records
        self._vault = vault
        self._clock = clock
        self._cached: OrderedDict[str, tuple[DataKey, float]] = OrderedDict()

    async def new(self, lineage_id: str, owner: str) -> Lineage:
        """A lineage of that owner's, with a fresh key. The caller adds it to the records before it stores anything
        under it."""
        key = secrets.token_bytes(KEY_BYTES)
        wrapped = await self._vault.wrap(key, lineage_id)
        return Lineage(lineage_id, owner, self._vault.name, wrapped, self._clock())

    async def key(self, lineage_id: str) -> bytes:
        """Its data key. NotFound when it was shredded or never was, Corrupt when the vault's master key is another."""
        return (await self.data_key(lineage_id)).key

    async def data_key(self, lineage_id: str) -> DataKey:
        """As `key`, and whose it is."""
        found = self._cached.get(lineage_id)
        if found is not None and time.monotonic() < found[1]:
            self._cached.move_to_end(lineage_id)
            return found[0]
        self._cached.pop(lineage_id, None)
        lineage = await self._records.get_lineage(lineage_id)
        if lineage is None or lineage.key is None:
            raise NotFound(f"The key of {lineage_id} has been destroyed: what it protected cannot be read any more.")
        if lineage.vault != self._vault.name:
            raise Unavailable(f"{lineage_id} needs the vault {lineage.vault!r}; this server has {self._vault.name!r}")
        key = await self._vault.unwrap(lineage.key, lineage_id)
        opened = DataKey(key, lineage.owner)
        self._cached[lineage_id] = (opened, time.monotonic() + CACHED_S)
        while len(self._cached) > CACHED_MAX:
            self._cached.popitem(last=False)
        return opened

    async def check(self) -> None:
        """Corrupt when the vault's master key is not the one that wrapped the oldest key here: what is made from then
        on would need another master key than what was there before."""
        for lineage in await self._records.list_lineages():
            if lineage.key is not None and lineage.vault == self._vault.name:
                await self._vault.unwrap(lineage.key, lineage.id)
                return

    async def shred(self, lineage_id: str, event: Event) -> None:
        """Destroy its key: whatever it protects is lost, in every copy. A second call does nothing."""
        lineage = await self._records.get_lineage(lineage_id)
        if lineage is not None and lineage.key is not None:
            await self._records.swap_lineage_key(lineage_id, lineage.key, None, lineage.vault, event)
        self._cached.pop(lineage_id, None)
