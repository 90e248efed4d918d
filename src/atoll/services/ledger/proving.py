"""Proving: the ledger is replayed now and then while the server runs, as `atoll ledger verify` does; metrics tell how
that went."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from atoll.domain.errors import AtollError
from atoll.services.clock import Clock, utc_now
from atoll.telemetry.ledger_metrics import LedgerMetrics

_log = structlog.get_logger()

FIRST_S = 300.0  # after the start, so that a server which starts again and again does not read its ledger each time


class Proof(Protocol):
    """What a proof found."""

    @property
    def transfers(self) -> int: ...

    @property
    def wrong(self) -> int: ...

    @property
    def problems(self) -> tuple[str, ...]: ...


class Proving:
    """One pass after `first_s`, then one every `every_s`; 0: none."""

    def __init__(
        self,
        prove: Callable[[], Awaitable[Proof]],
        *,
        every_s: float,
        first_s: float = FIRST_S,
        metrics: LedgerMetrics | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._prove = prove
        self._every_s = every_s
        self._first_s = first_s
        self._metrics = metrics or LedgerMetrics()
        self._clock = clock
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._every_s:
            self._loop = asyncio.create_task(self._run(), name="proving the ledger")

    async def close(self) -> None:
        """A second call does nothing."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def run(self) -> bool | None:
        """Whether it holds; None when it could not be read."""
        try:
            proof = await self._prove()
        except AtollError as error:
            _log.warning("ledger.not_proved", error=error.message)
            return None
        self._metrics.proved(proof.wrong, self._clock())
        if proof.wrong:
            _log.error("ledger.wrong", problems=proof.wrong, first=proof.problems[:1], fix="atoll ledger verify")
        return not proof.wrong

    async def _run(self) -> None:
        await asyncio.sleep(self._first_s)
        while True:
            try:
                await self.run()
            except Exception:
                _log.exception("ledger.proof_failed")
            await asyncio.sleep(self._every_s)
