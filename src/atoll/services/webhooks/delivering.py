"""Delivers events to webhooks: at least once and in order for each, from the records, so that no restart loses one.

A failed call is tried again after longer and longer, for a day; then the webhook is disabled, with an event. Of several
servers the one that holds a webhook's lease delivers, for a turn; makers take turns, so that slow receivers of one
hold up nobody else.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from pydantic_core import to_json

from atoll.domain.errors import AtollError, NotFound, StaleVersion
from atoll.domain.event import SYSTEM, Event
from atoll.domain.webhook import Webhook
from atoll.records.base import Records
from atoll.services.clock import Clock, utc_now
from atoll.services.outbound import Outbound
from atoll.services.webhooks.signatures import signed_headers
from atoll.services.webhooks.webhooks import secret_context
from atoll.telemetry.metrics import Metrics
from atoll.vaults.base import Vault

_log = structlog.get_logger()

GONE = 410  # a receiver that says so wants no more calls
PAGE = 50
ERROR_CHARS = 300

Tell = Callable[[Event], dict[str, object]]  # an event as the surface tells it
Stands = Callable[[Webhook], Awaitable[str | None]]  # why it may be told of nothing any more


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Times in seconds."""

    timeout_s: float = 10.0
    give_up_after_s: float = 86_400.0
    every_s: float = 1.0  # between looks for something to tell
    lease_s: float = 60.0
    first_retry_s: float = 5.0
    longest_retry_s: float = 3_600.0
    at_once: int = 32
    at_once_each: int = 4  # of one maker's
    turn_s: float = 5.0  # no call begins later in a turn
    turn_calls: int = 100


@dataclass(slots=True)
class _Turn:
    """What is left of one webhook's turn."""

    ends_at: float  # of the loop's clock
    calls: int

    @property
    def over(self) -> bool:
        return self.calls <= 0 or asyncio.get_running_loop().time() >= self.ends_at


class Deliveries:
    """The job; between `start` and `close`."""

    def __init__(
        self,
        records: Records,
        vault: Vault,
        outbound: Outbound,
        tell: Tell,
        stands: Stands,
        metrics: Metrics,
        limits: DeliveryLimits | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._records = records
        self._vault = vault
        self._outbound = outbound
        self._tell = tell
        self._stands = stands
        self._metrics = metrics
        self._limits = limits or DeliveryLimits()
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()  # a turn ended that left something to be told
        self._running: dict[asyncio.Task[None], str] = {}  # with the ids of their webhooks

    def start(self) -> None:
        self._task = asyncio.create_task(self._forever(), name="webhooks")

    async def close(self) -> None:
        """Cut what is on its way: it is sent again by whoever delivers next, at once. A second call does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        held = dict(self._running)
        for one in (task, *held):
            one.cancel()
        await asyncio.wait((task, *held))
        for webhook_id in held.values():
            with suppress(AtollError):
                await self._records.release_webhook(webhook_id, self._holder)

    async def _forever(self) -> None:
        while True:
            try:
                await self._lease()
            except AtollError as error:
                _log.warning("webhooks.wait", error=error.message)
            except Exception:
                _log.exception("webhooks.failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.every_s):
                    await self._more.wait()
            self._more.clear()

    async def _lease(self) -> None:
        room = self._limits.at_once - len(self._running)
        if room <= 0:
            return
        now, each = self._clock(), self._limits.at_once_each
        for webhook in await self._records.lease_webhooks(self._holder, now, self._until(), room, each=each):
            task = asyncio.create_task(self._deliver(webhook), name=f"webhook {webhook.id}")
            self._running[task] = webhook.id
            task.add_done_callback(self._running.pop)

    async def _deliver(self, webhook: Webhook) -> None:
        """Tell it of all there is, until a call fails or its turn is over."""
        limits = self._limits
        turn = _Turn(asyncio.get_running_loop().time() + limits.turn_s, limits.turn_calls)
        try:
            secret = await self._vault.unwrap(webhook.secret, secret_context(webhook.id))
            places = list((await self._records.webhook_places(webhook)).items())
            random.shuffle(places)  # a busy tenant is not always the first
            for tenant, seq in places:
                if not await self._deliver_chain(webhook, secret, tenant, seq, turn):
                    return
                if turn.over:
                    break
            await self._records.release_webhook(webhook.id, self._holder)
            if turn.over:
                self._more.set()
        except AtollError as error:  # the lease runs out, somebody tries again
            _log.warning("webhook.waits", webhook=webhook.id, error=error.message)
        except Exception:
            _log.exception("webhook.failed", webhook=webhook.id)

    async def _deliver_chain(self, webhook: Webhook, secret: bytes, tenant: str, seq: int, turn: _Turn) -> bool:
        """One tenant's events in order, until the turn is over. False when the turn is lost: a call failed, the webhook
        may be told of nothing any more, or the lease is another's."""
        while page := await self._records.follow_events(tenant, seq, PAGE):
            for event in page:
                seq = event.seq or 0
                if not webhook.wants(event.action):
                    continue
                if (why := await self._stands(webhook)) is not None:
                    await self._disable(webhook, why)
                    return False
                error = await self._call(webhook, secret, event)
                if error is not None:
                    await self._failed(webhook, error)
                    return False
                if not await self._moved(webhook, tenant, seq, delivered=True):
                    return False
                turn.calls -= 1
                if turn.over:
                    return True
            if not await self._moved(webhook, tenant, seq, delivered=False):
                return False
            if turn.over:
                return True
        return True

    async def _moved(self, webhook: Webhook, tenant: str, seq: int, *, delivered: bool) -> bool:
        at = self._clock() if delivered else None
        return await self._records.move_webhook(webhook.id, self._holder, tenant, seq, self._until(), at)

    async def _call(self, webhook: Webhook, secret: bytes, event: Event) -> str | None:
        """What went wrong, or None."""
        body = to_json({"type": event.action, "timestamp": event.at, "data": self._tell(event)})
        headers = signed_headers(secret, f"evt_{event.id}", int(self._clock().timestamp()), body)
        headers |= {"content-type": "application/json"}
        try:
            answer = await self._outbound.request(
                "POST", webhook.url, headers=headers, body=body, timeout_s=self._limits.timeout_s
            )
            error = None if answer.ok else f"it answered {answer.status}"
        except AtollError as refused:
            error = refused.message[:ERROR_CHARS]
        self._metrics.audit.delivered(ok=error is None)
        return error

    async def _failed(self, webhook: Webhook, error: str) -> None:
        now, limits = self._clock(), self._limits
        stored = await self._records.get_webhook(webhook.id) or webhook
        since = stored.failing_since or now
        if now - since >= timedelta(seconds=limits.give_up_after_s) or error == f"it answered {GONE}":
            await self._disable(stored, f"its calls have failed since {since.isoformat(timespec='seconds')}: {error}")
            return
        pause_s = min(limits.first_retry_s * 2 ** min(stored.failures, 20), limits.longest_retry_s)
        next_at = now + timedelta(seconds=pause_s * random.uniform(0.8, 1.2))
        _log.info("webhook.call_failed", webhook=webhook.id, error=error, failures=stored.failures + 1)
        await self._records.fail_webhook(
            webhook.id, self._holder, failures=stored.failures + 1, since=since, next_at=next_at, error=error
        )

    async def _disable(self, webhook: Webhook, why: str) -> None:
        while (stored := await self._records.get_webhook(webhook.id)) is not None and stored.disabled_at is None:
            after = replace(stored, disabled_at=self._clock(), disabled_why=why)
            event = Event(
                "webhook.disabled", stored.id, stored.owner, SYSTEM, "failed", detail={"why": why}, at=self._clock()
            )
            try:
                await self._records.swap_webhook(after, event)
            except StaleVersion:
                continue
            except NotFound:
                return
            self._metrics.audit.webhook_disabled()
            _log.warning("webhook.disabled", webhook=stored.id, why=why)

    def _until(self) -> datetime:
        return self._clock() + timedelta(seconds=self._limits.lease_s)
