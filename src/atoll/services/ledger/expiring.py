"""Expiring: the loop in which holds that nobody settled come back to their accounts; the application runs it."""

from __future__ import annotations

import asyncio

import structlog

from atoll.domain.errors import AtollError
from atoll.services.ledger.ledger import Ledger

_log = structlog.get_logger()

EVERY_S = 10.0


class Expiring:
    """A first pass at once: holds of the server's life before may be past their moment."""

    def __init__(self, ledger: Ledger, *, every_s: float = EVERY_S) -> None:
        self._ledger = ledger
        self._every_s = every_s
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="expiring holds")

    async def close(self) -> None:
        """Charges under way are carried to their end first."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        self._loop = None
        await self._ledger.close()

    async def _run(self) -> None:
        while True:
            await self._pass()
            await asyncio.sleep(self._every_s)

    async def _pass(self) -> None:
        try:
            if gone := await self._ledger.expire():
                _log.info("ledger.expired", holds=gone)
        except AtollError as error:
            _log.warning("ledger.not_expired", error=error.message)
        except Exception:
            _log.exception("ledger.not_expired")
