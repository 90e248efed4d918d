"""Deleting: what this server has copied and the records name no more goes from the second store too.

After the grace, and once no backup there needs it. A backup that cannot be read keeps everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

import structlog

from atoll.blobs.base import Blobs
from atoll.domain import crash
from atoll.domain.errors import Corrupt, NotFound
from atoll.services.clock import Clock
from atoll.services.deadline import deadline
from atoll.services.recovery.backup import Backup
from atoll.services.recovery.copy_journal import CopyJournal
from atoll.services.recovery.verified_copying import each

_log = structlog.get_logger()

DELETE_S = 60.0  # for one object
INVENTORY_S = 600.0  # for the list of backups, and for what one of them needs
BATCH = 100  # objects between two writes of the journal


class Deleting:
    """Of one second store."""

    def __init__(
        self,
        second: Blobs,
        backup: Backup,
        journal: CopyJournal,
        claim: Callable[[], Awaitable[None]],
        *,
        grace_s: float,
        clock: Clock,
    ) -> None:
        """`claim` raises Conflict when the store is another's by now."""
        self._second = second
        self._backup = backup
        self._journal = journal
        self._claim = claim
        self._grace = timedelta(seconds=grace_s)
        self._clock = clock
        self._moments: frozenset[str] = frozenset()  # the backups that were read
        self._kept: frozenset[str] = frozenset()  # what they need of what was due

    async def delete_unneeded(self, named: Collection[str], there: dict[str, int]) -> None:
        """`named`: the keys of the records. What goes leaves `there`. Conflict, Unavailable,
        DeadlineExceeded, OSError."""
        now = self._clock()
        unneeded = await asyncio.to_thread(self._journal.settle, named, now)
        due = frozenset(key for key, since in unneeded.items() if since + self._grace <= now)
        if not due:
            return
        async with deadline(INVENTORY_S, "listing the backups"):
            moments = frozenset(await self._backup.list())
        if self._moments <= moments and due <= self._kept:  # the backups that need them are still there
            return
        needed: set[str] = set()
        try:
            for moment in moments:
                async with deadline(INVENTORY_S, f"reading what backup {moment} needs"):
                    needed |= due & (await self._backup.inventory(moment)).keys()
        except (Corrupt, NotFound) as error:  # who could say what it needs?
            _log.warning("second_store.kept", objects=len(due), error=error.message)
            return
        await self._claim()
        for batch in _batches(sorted(due - needed)):
            await each(batch, self._delete)
            for key in batch:
                there.pop(key, None)
            await asyncio.to_thread(self._journal.remove, batch)
        self._moments, self._kept = moments, frozenset(needed)

    async def _delete(self, key: str) -> None:
        async with deadline(DELETE_S, "deleting an object of the second store"):
            await self._second.delete(key)
        crash.point("backup.object_deleted")


def _batches(keys: list[str]) -> list[list[str]]:
    return [keys[at : at + BATCH] for at in range(0, len(keys), BATCH)]
