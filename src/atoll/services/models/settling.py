"""Settling: a call's hold is resolved exactly once, with what it used, whoever goes away meanwhile.

Model calls tell it when a call is over; the use reaches the ledger before the program hears of the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from atoll.domain.errors import AtollError
from atoll.domain.ids import new_id
from atoll.domain.ledger import Hold, Use, UseKind
from atoll.services.clock import Clock
from atoll.services.models.call import Call
from atoll.services.models.holding import Holding, Purse
from atoll.telemetry.model_metrics import ModelMetrics

_log = structlog.get_logger()
RETRIES_S = (0.5, 2.0, 8.0)
CLOSE_S = 10.0


class Settling:
    """One server's. `used` hears of each call that was charged, with what it used."""

    def __init__(
        self,
        ledger: Purse,
        holding: Holding,
        metrics: ModelMetrics,
        clock: Clock,
        used: Callable[[Call, Use], None],
    ) -> None:
        self._used = used
        self._ledger = ledger
        self._holding = holding
        self._metrics = metrics
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let what is being settled be settled; a second call does nothing."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=CLOSE_S)

    async def settle(self, call: Call) -> None:
        """Charge what it used; a second time does nothing."""
        if call.settled:
            return
        call.settled = True
        await self._behind(self._settle(call), "settling a model call")

    async def void(self, hold: Hold | None) -> None:
        """Of a call that was never made."""
        await self._behind(self._ledger.void(hold), "voiding a model call")

    async def _behind(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """In a task of its own: whoever asked may be cancelled, the money is settled."""
        task = asyncio.create_task(work, name=name)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _settle(self, call: Call) -> None:
        if not call.answered:
            await _retried(lambda: self._ledger.void(call.hold), call)
            return
        use = self._use(call)
        self._metrics.used(use.tokens)
        if call.hold is not None and use.cost.total > call.hold.amount:
            self._holding.went_beyond(use.account, use.cost.total)
            _log.warning("models.beyond_hold", account=use.account, model=call.model, cost=use.cost.total)
        if await _retried(lambda: self._ledger.settle(call.hold, use), call):
            self._used(call, use)

    def _use(self, call: Call) -> Use:
        payer, tokens = call.payer, call.meter.tokens(call.asked.input_tokens)
        return Use(
            id=new_id("use"),
            account=payer.account,
            kind=UseKind.MODEL,
            at=self._clock(),
            cost=call.price.cost(tokens),
            tokens=tokens,
            model=call.model,
            credential=payer.credential,
            task=payer.task,
            thread=payer.thread,
            sandbox=payer.sandbox,
            workspace=payer.workspace,
            workspace_owner=payer.workspace_owner,
            internal=payer.internal,
        )


async def _retried(resolve: Callable[[], Awaitable[object]], call: Call) -> bool:
    """Whether it was done. The same use twice is one use, and a hold resolves once: so a store that is away for a
    moment is asked again; what is never done expires by itself."""
    for wait_s in (*RETRIES_S, 0.0):
        try:
            await resolve()
            return True
        except Exception as error:
            fault = not isinstance(error, AtollError | OSError)
            task = call.payer.task
            _log.warning("models.not_settled", task=task, error=str(error), again_in_s=wait_s, exc_info=fault)
        await asyncio.sleep(wait_s)
    return False
