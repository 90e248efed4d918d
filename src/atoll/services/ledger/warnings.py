"""Warnings: who hears that half, most or all of a limit or a budget is spent: an event, which webhooks carry.

The ledger calls it after each charge. What is spent under one bound only grows within its window, and each charge says
from where to where: so each mark is passed once, whichever server charges.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.event import Event
from atoll.domain.ids import KEY_ID, SANDBOX_ID
from atoll.domain.ledger import Spent
from atoll.domain.ledger_rules import DAILY, MONTHLY
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.telemetry.ledger_metrics import LedgerMetrics

_log = structlog.get_logger()

MARKS_PERCENT = (50, 80, 100)
ACTION = "budget.warning"


class Warnings:
    """What is only told does not fail what it tells of: a database that is down at that moment loses the warning."""

    def __init__(self, records: Records, *, clock: Clock = utc_now, metrics: LedgerMetrics | None = None) -> None:
        self._records = records
        self._clock = clock
        self._metrics = metrics or LedgerMetrics()

    async def spent(self, account: str, bounds: Iterable[Spent]) -> None:
        """Tell of each mark that this charge passed."""
        for one in bounds:
            for percent in passed(one):
                self._metrics.warned(kind_of(one.bound), percent)
                await self._tell(account, one, percent)

    async def _tell(self, account: str, spent: Spent, percent: int) -> None:
        kind = kind_of(spent.bound)
        subject = account if spent.bound in (DAILY, MONTHLY) else spent.bound
        detail = {
            "bound": kind,
            "percent": percent,
            "spent_micro_usd": spent.after,
            "limit_micro_usd": spent.limit,
        }
        event = Event(ACTION, subject, account, actor=account, detail=detail, at=self._clock())
        try:
            await self._records.add_event(event)
        except AtollError as error:
            _log.warning("ledger.untold", target=subject, percent=percent, error=error.message)


def passed(spent: Spent) -> list[int]:
    """The marks that lie between what was spent before and what is spent now."""
    if spent.limit <= 0:
        return []
    return [mark for mark in MARKS_PERCENT if spent.before * 100 < mark * spent.limit <= spent.after * 100]


def kind_of(bound: str) -> str:
    """What is bounded: an account's day or month, a key, a sandbox's capability, or a task."""
    if bound in (DAILY, MONTHLY):
        return bound
    return "key" if KEY_ID.match(bound) else "sandbox" if SANDBOX_ID.match(bound) else "task"
