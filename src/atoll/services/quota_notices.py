"""Notices: who hears that a quota is nearly or quite used: metrics, events, and a header of the answer.

Quotas calls it. A metric counts each refusal; an event is written once a minute for each quota and subject.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import structlog

from atoll.domain.errors import AtollError, QuotaExceeded
from atoll.domain.event import Event
from atoll.domain.origin import ORIGIN
from atoll.domain.quota import QuotaUse
from atoll.records.base import Records
from atoll.services.clock import Clock
from atoll.telemetry.metrics import Metrics

_log = structlog.get_logger()

REMEMBERED_MAX = 10_000
EVENT_EVERY_S = 60.0

_Key = tuple[str, str]


class Notices:
    """What this server has told already lies in memory: another server tells it again."""

    def __init__(
        self,
        records: Records,
        metrics: Metrics,
        warn_percent: int,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._metrics = metrics
        self._warn_percent = warn_percent
        self._clock = clock
        self._monotonic = monotonic
        self._warned: OrderedDict[_Key, None] = OrderedDict()  # of those that are above the mark now
        self._told_at: OrderedDict[_Key, float] = OrderedDict()  # when a refusal was last an event

    async def used(self, uses: Iterable[QuotaUse], tenant: str, actor: str, *, tell: bool = True) -> None:
        """Warn of each that has passed the mark; in the answer every time (with `tell`, for one that goes to the
        tenant), elsewhere once until it falls below again.

        Uses are looked at when something is asked for, so that is when one is seen to have fallen.
        """
        for use in uses:
            key = (use.subject, use.name.value)
            if not use.reaches(self._warn_percent):
                self._warned.pop(key, None)
                continue
            if tell:
                _tell(f"{use.name.value} {use.used}/{use.limit}")
            if key in self._warned:
                self._warned.move_to_end(key)
                continue
            _remember(self._warned, key, None)
            self._metrics.quota_warned(use.name.value)
            detail = {"quota": use.name.value, "used": use.used, "limit": use.limit, "subject": use.subject}
            await self._write(Event("quota.warning", tenant, tenant, actor, detail=detail, at=self._clock()))

    async def refused(self, error: QuotaExceeded, tenant: str, actor: str) -> None:
        """Count a refusal, and write it down."""
        name, subject = error.quota or "other", error.subject or tenant
        self._metrics.quota_exceeded(name)
        key, now = (subject, name), self._monotonic()
        last = self._told_at.get(key)
        if last is not None and now - last < EVENT_EVERY_S:
            return
        _remember(self._told_at, key, now)
        detail = {"quota": name, "used": error.used, "limit": error.limit, "subject": subject}
        event = Event("quota.exceeded", tenant, tenant, actor, outcome="refused", detail=detail, at=self._clock())
        await self._write(event)

    async def _write(self, event: Event) -> None:
        """What is only told does not fail what it tells of."""
        try:
            await self._records.add_event(event)
        except AtollError as error:
            _log.warning("quota.untold", action=event.action, error=error.message)


def _remember(known: OrderedDict[_Key, float] | OrderedDict[_Key, None], key: _Key, value: float | None) -> None:
    known[key] = value  # type: ignore[assignment]
    known.move_to_end(key)
    if len(known) > REMEMBERED_MAX:
        known.popitem(last=False)


def _tell(warning: str) -> None:
    """In a header of the answer, if this is in the course of a request."""
    origin = ORIGIN.get()
    if origin is not None and warning not in origin.quota_warnings:
        origin.quota_warnings.append(warning)
