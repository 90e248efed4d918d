"""Settling: a charge is made once and for certain, when the database is down for a while and the asker has gone, too.

The ledger hands over what was used; what waits here is lost with the server, and its holds expire.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from atoll.domain import crash
from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.ledger import Budget, Hold, HoldState, Payee, Settled, TransferKind, Use
from atoll.records.base import Records
from atoll.services.background import Background
from atoll.services.clock import Clock
from atoll.services.ledger.warnings import Warnings
from atoll.telemetry.ledger_metrics import LedgerMetrics

_log = structlog.get_logger()

ATTEMPTS = 4  # each as patient as the records are
LATE_MAX = 10_000  # charges that wait for a database that is down


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge that is to be made, out of a hold or of what is available."""

    hold: Hold | None
    use: Use
    budgets: tuple[Budget, ...] = ()
    payee: Payee | None = None


class Settling:
    """The same use twice is one use, and a hold resolves once: so each may be tried as often as need be."""

    def __init__(self, records: Records, warnings: Warnings, *, clock: Clock, metrics: LedgerMetrics) -> None:
        self._records = records
        self._warnings = warnings
        self._clock = clock
        self._metrics = metrics
        self._late: dict[str, Charge] = {}  # by the use's id
        self._background = Background()

    async def settle(self, charge: Charge) -> Settled | None:
        """None when nothing is charged; Unavailable when it has to be made later."""
        return await self._background.finish(self._patiently(charge), "settling")

    async def _patiently(self, charge: Charge) -> Settled | None:
        for attempt in range(ATTEMPTS):
            try:
                if attempt:
                    await asyncio.sleep(0.2 * 2 ** (attempt - 1))
                settled = await self._once(charge, again=attempt > 0)
                crash.point("ledger.settle.done")
                return settled
            except Unavailable:
                if attempt == 0:
                    self._metrics.settled_late()
            except asyncio.CancelledError:
                self._late[charge.use.id] = charge  # `close` tries it once more
                raise
        self._late[charge.use.id] = charge
        if len(self._late) > LATE_MAX:
            self._give_up(next(iter(self._late.values())), "too many wait")
        raise Unavailable("the database does not answer: what was used is charged when it does")

    async def settle_late(self) -> None:
        """Try those again that the database could not take."""
        for one in list(self._late.values()):
            try:
                await self._once(one, again=True)
            except Unavailable:
                return
            except AtollError as error:
                self._give_up(one, error.message)
            except Exception:  # a fault of ours: it waits on, and keeps no other from being made
                _log.exception("ledger.charge_failed", use=one.use.id)
                continue
            self._late.pop(one.use.id, None)

    def _give_up(self, one: Charge, why: str) -> None:
        self._late.pop(one.use.id, None)
        self._metrics.lost(0 if one.use.internal else one.use.cost.total)
        _log.error("ledger.charge_lost", account=one.use.account, use=one.use.id, why=why)

    def waiting_holds(self) -> set[str]:
        """Holds that are still to be charged."""
        return {one.hold.id for one in self._late.values() if one.hold is not None}

    async def close(self, within_s: float) -> None:
        """Carry what is under way to its end, and try the others once more."""
        await self._background.close(within_s)
        await self.settle_late()
        for one in list(self._late.values()):
            self._give_up(one, "the server ends")

    async def _once(self, charge: Charge, *, again: bool) -> Settled | None:
        now = self._clock()
        if charge.hold is None:
            settled = await self._records.add_use(charge.use, now, budgets=charge.budgets)
        else:
            settled = await self._records.post_hold(charge.hold.id, charge.use, now, payee=charge.payee)
        if settled is None:
            return None
        if again and not settled.charged:
            # The attempt before may have gone through without saying so: then that is what was charged.
            settled = replace(settled, charged=settled.hold.posted)
        self._count(settled, of_hold=charge.hold is not None, paid=charge.payee is not None)
        await self._warnings.spent(settled.account.id, settled.spent)
        return settled

    def _count(self, settled: Settled, *, of_hold: bool, paid: bool) -> None:
        if of_hold and settled.hold.state is HoldState.POSTED:
            self._metrics.held("posted")
        if settled.charged:
            self._metrics.transferred(TransferKind.USAGE.value, settled.charged)
        if settled.charged and paid:
            self._metrics.transferred(TransferKind.EARNING.value, settled.charged)
        if settled.lost:
            self._metrics.lost(settled.lost)
