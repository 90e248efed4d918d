"""Holding: the money for a call is set aside before it, and with it the output that the call may have.

Model calls ask for it. What other calls hold is mostly given back in seconds: a call waits for that, rather than end a
task that could be paid.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from atoll.domain.ledger import (
    BillingAccount,
    BudgetExceeded,
    Hold,
    InsufficientCredit,
    Payer,
    Settled,
    SpendingLimitExceeded,
    Use,
)
from atoll.domain.price import ModelPrice, TokenUse
from atoll.services.models.limits import ModelLimits
from atoll.services.models.refusals import Because, CallRefused
from atoll.services.models.requests import ModelRequest

SPARE_S = 120.0  # that a hold outlives the longest call, in which it is settled
LOOK_S = 0.1  # between two looks whether others have given back
BEYOND_S = 600.0  # for which a call that cost more than was held for it is remembered
Spent = InsufficientCredit | SpendingLimitExceeded


class Purse(Protocol):
    """As much of the ledger as calls of models need."""

    async def account(self, payer: str, /) -> BillingAccount: ...

    async def hold(self, payer: Payer, amount_micro_usd: int, /, *, lasts_s: float) -> Hold | None: ...

    async def settle(self, hold: Hold | None, use: Use, /) -> Settled | None: ...

    async def void(self, hold: Hold | None, /) -> None: ...


class Holding:
    """Settled point 28."""

    def __init__(self, ledger: Purse, limits: ModelLimits) -> None:
        self._ledger = ledger
        self._limits = limits
        self._beyond: dict[str, tuple[float, int]] = {}  # account: until when, what such a call cost

    def went_beyond(self, account: str, cost: int) -> None:
        """A call cost more than was held for it. For a while at least as much is held for each of that account, or
        all that is left: then they come one after the other, and no second is begun on money that the first spends."""
        now = time.monotonic()
        self._beyond = {name: one for name, one in self._beyond.items() if now < one[0]}
        _, before = self._beyond.get(account, (now, 0))
        self._beyond[account] = (now + BEYOND_S, max(before, cost))

    async def take(self, payer: Payer, asked: ModelRequest, price: ModelPrice) -> tuple[Hold | None, int | None]:
        """The hold, and the bound that is to be written into the request. InsufficientCredit or SpendingLimitExceeded
        when what is left does not pay the call, whatever others give back; CallRefused when they keep it too long."""
        wanted = asked.output_bound()
        if payer.internal:
            return None, wanted
        given = asked.input_tokens
        most = self._limits.output_tokens_max * asked.choices if wanted is None else wanted
        least = min(most, self._limits.output_tokens_min * asked.choices) if wanted is None else wanted
        bound, floor, until = most, self._floor(payer.account), time.monotonic() + self._limits.queue_s
        while True:
            try:
                amount = max(floor, price.cost(TokenUse(given, bound)).total)
                return await self._ledger.hold(payer, amount, lasts_s=self._limits.call_s + SPARE_S), bound
            except (InsufficientCredit, SpendingLimitExceeded) as error:
                if price.cost(TokenUse(given, least)).total > _left(error):
                    if bound == least and not floor:
                        raise
                    bound, floor = least, 0  # refused too: its refusal names the least that would do
                    continue
                if floor > _left(error):
                    floor = _left(error)
                    continue
                smaller = await self._smaller(payer, error, price, given, bound)
            if least <= smaller < bound:
                bound = smaller
                continue
            if time.monotonic() >= until:
                raise CallRefused(Because.BUSY, "other calls hold the credit of this account", retry_after_s=5)
            await asyncio.sleep(LOOK_S)
            bound = most

    def _floor(self, account: str) -> int:
        until, cost = self._beyond.get(account, (0.0, 0))
        return cost if time.monotonic() < until else 0

    async def _smaller(self, payer: Payer, error: Spent, price: ModelPrice, given: int, bound: int) -> int:
        """A bound that what nobody holds may pay."""
        if isinstance(error, BudgetExceeded):
            return bound // 2  # who holds how much of a budget is not told
        account = await self._ledger.account(payer.account)
        free = account.available if isinstance(error, InsufficientCredit) else _left(error) - account.held
        free -= price.cost(TokenUse(given, 0)).total
        return bound if free > 0 and not price.output else int(free / price.output) if free > 0 else 0


def _left(error: Spent) -> int:
    """What is left when all holds are given back."""
    if isinstance(error, InsufficientCredit):
        return error.balance
    windows = ((error.daily_limit, error.daily_usage), (error.monthly_limit, error.monthly_usage))
    return min((limit - used for limit, used in windows if limit is not None), default=0)
