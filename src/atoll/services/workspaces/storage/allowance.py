"""Allowance: what may still be stored: the bytes of one owner, and the free space of the server's disks.

Writers of chunks ask before each pack; whoever is about to do much work for one asks before that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple, TypeVar

from atoll.domain.quota import KEY_PLAN, QuotaName, QuotaUse
from atoll.records.base import Records
from atoll.services.charging.spending import FreeOfCharge, Spending
from atoll.services.quotas import QuotaLimits, Quotas, plans_with
from atoll.services.workspaces.storage.free_space import FreeSpace, StorageFull
from atoll.services.workspaces.storage.storage_limits import StorageLimits

T = TypeVar("T")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Use(NamedTuple):
    """Bytes that an owner has stored, compressed and each chunk once, and may store; None: as many as there is room
    for."""

    bytes: int
    most: int | None


class Allowance:
    """Asks the records and the disks."""

    def __init__(
        self, records: Records, limits: StorageLimits, disks: FreeSpace | None = None, quotas: Quotas | None = None
    ) -> None:
        """Without `quotas` every owner with a standard key may store `limits.stored_bytes_max`."""
        own = QuotaLimits({KEY_PLAN: plans_with(0, limits.stored_bytes_max)[KEY_PLAN]}, cache_s=0.0)
        self._records = records
        self._quotas = quotas or Quotas(records, own)
        self._limits = limits
        self._disks = disks or FreeSpace()
        self.spending: Spending = FreeOfCharge()

    async def use(self, owner: str) -> Use:
        return Use(await self._records.stored_bytes(owner), await self.most(owner))

    async def most(self, owner: str) -> int | None:
        """What that owner may store; None for those that no quota holds for, and where there is none."""
        return (await self._quotas.of(owner)).amounts.get(QuotaName.STORED)

    async def check_new(self, owner: str) -> Use:
        """As `check`, for what somebody is about to begin: refused for money too, where storage has a price. What goes
        on, such as the saving of work that is done, never is."""
        await self.spending.check_storage(owner)
        return await self.check(owner)

    async def check(self, owner: str, size: int = 1) -> Use:
        """What the owner has stored. StorageFull when so many more bytes were too many, or by `check_disks`. Who then
        stores them has it decided by the records, in the transaction that counts them."""
        await self.check_disks()
        use = await self.use(owner)
        if use.most is not None and use.bytes + size > use.most:
            raise await self.full(owner, use, size)
        if use.most is not None:
            stored = QuotaUse(QuotaName.STORED, owner, use.bytes, use.most)
            await self._quotas.used([stored], owner, owner, tell=False)  # the answer may be a collaborator's
        return use

    async def check_disks(self) -> None:
        """StorageFull when nothing new may be stored on a disk of this server."""
        await self._disks.check()

    async def while_free(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The items, on their way to a disk of this server. StorageFull as of `check_disks`, at any of them."""
        async with aclosing(items):
            async for item in items:
                await self.check_disks()
                yield item

    async def full(self, owner: str, use: Use, more: int) -> StorageFull:
        """The error, counted, when so many more bytes were to be stored. What is stored is told in three digits: it
        may go to a collaborator, who is to learn little of the owner's other workspaces."""
        most = "" if use.most is None else f" of {_rounded(use.most)}"
        error = StorageFull(
            f"stored bytes limit reached: {_rounded(use.bytes)}{most} in all workspaces of this owner, and "
            f"{_rounded(more)} more do not fit (workspaces.max_stored_bytes). Delete workspaces or snapshots that "
            "nobody needs: their bytes are freed at the next collection, those of snapshots when they are "
            f"{self._limits.grace_s / 3600:g} hours old",
            quota=QuotaName.STORED,
            subject=owner,
            used=use.bytes,
            limit=use.most or 0,
        )
        await self._quotas.refused(error, owner, owner)
        return error


def _rounded(size: float) -> str:
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if size >= 100 else f"{size:.3g} {unit}"
        size /= 1024
    raise AssertionError
