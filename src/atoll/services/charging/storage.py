"""StorageCharges: what each owner has stored is charged by the hour, each hour once, whichever server does it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import structlog

from atoll.domain.errors import AtollError, Unavailable
from atoll.domain.ledger import Use, UseKind
from atoll.records.base import Records
from atoll.services.charging.compute import use_id
from atoll.services.charging.payers import payer_of
from atoll.services.clock import Clock, utc_now
from atoll.services.ledger.ledger import Ledger

_log = structlog.get_logger()

GIB = 2**30
PAGE = 500


class StorageCharges:
    """What is stored when an hour's first pass comes by counts for that hour; no pass in an hour: it costs nothing."""

    def __init__(self, records: Records, ledger: Ledger, *, clock: Clock = utc_now) -> None:
        self._records = records
        self._ledger = ledger
        self._clock = clock
        self._done: datetime | None = None  # the last hour that was charged whole

    async def run(self) -> int:
        """One pass; how many owners were charged."""
        if not self._ledger.prices.storage_per_gib_hour:
            return 0
        now = self._clock()
        hour = now.replace(minute=0, second=0, microsecond=0)
        if self._done == hour:
            return 0
        count, after = 0, ""
        while found := await self._records.list_stored(after=after, limit=PAGE):
            for owner, size in found:
                await self._charge(owner, size, hour, now)
                count += 1
            after = found[-1][0]
        self._done = hour
        return count

    async def _charge(self, owner: str, size: int, hour: datetime, now: datetime) -> None:
        """Unavailable ends the pass, and the next one begins again; what is wrong with one owner keeps nobody else."""
        try:
            payer = await payer_of(self._records, owner)
            use = Use(
                use_id("storage", owner, hour.isoformat()),
                payer.account,
                UseKind.STORAGE,
                now,
                self._ledger.prices.storage(Decimal(size) / GIB),
                credential=payer.credential,
                workspace_owner=owner,
                internal=payer.internal,
            )
            await self._ledger.charge(use, budgets=payer.budgets)
        except AtollError as error:
            _log.warning("storage.not_charged", owner=owner, error=error.message)
            if isinstance(error, Unavailable):
                raise
        except Exception:
            _log.exception("storage.not_charged", owner=owner)
