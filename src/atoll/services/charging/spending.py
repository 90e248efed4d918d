"""Spending: whether somebody can pay for compute or storage, where those have a price; services ask before they give.

What has no price is never refused for money.
"""

from __future__ import annotations

from typing import Protocol

from atoll.records.base import Records
from atoll.services.charging.payers import payer_of
from atoll.services.ledger.ledger import Ledger


class Spending(Protocol):
    """What the services of sandboxes and workspaces know of money."""

    async def check_compute(self, owner: str, credential: str = "", maker: str = "") -> None:
        """SpendingLimitExceeded, InsufficientCredit or BudgetExceeded where who pays may not begin to.
        `maker`: the sandbox that asks for another."""
        ...

    async def check_storage(self, owner: str) -> None:
        """The same for what is about to be stored."""
        ...


class FreeOfCharge:
    """Everybody may use everything."""

    async def check_compute(self, owner: str, credential: str = "", maker: str = "") -> None: ...

    async def check_storage(self, owner: str) -> None: ...


class PricedSpending:
    """By the ledger's prices and accounts."""

    def __init__(self, records: Records, ledger: Ledger) -> None:
        self._records = records
        self._ledger = ledger

    async def check_compute(self, owner: str, credential: str = "", maker: str = "") -> None:
        if self._ledger.prices.compute_per_s:
            await self._ledger.check(await payer_of(self._records, owner, credential, maker))

    async def check_storage(self, owner: str) -> None:
        if self._ledger.prices.storage_per_gib_hour:
            await self._ledger.check(await payer_of(self._records, owner))
