"""Slow receivers of one maker hold up nobody else's deliveries: turns end, and places are shared out by maker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from atoll.domain.event import Event
from atoll.domain.ids import new_id
from atoll.domain.webhook import Webhook
from atoll.services.clock import utc_now
from atoll.services.webhooks.delivering import Deliveries, DeliveryLimits
from atoll.services.webhooks.webhooks import secret_context
from atoll.telemetry.metrics import Metrics
from atoll.testing.memory_records import MemoryRecords
from atoll.testing.memory_vault import MemoryVault

SLOW, QUICK = "key_51000000000", "key_90000000000"
LIMITS = DeliveryLimits(every_s=0.01, at_once=4, at_once_each=2, turn_s=30.0, turn_calls=2)


class Receivers:
    """Whatever is not held answers at once."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.now = self.most = 0
        self.hold: asyncio.Event | None = asyncio.Event()

    async def request(self, _method: str, url: str, **_: Any) -> Any:
        self.calls.append(url)
        if SLOW in url and self.hold is not None:
            self.now += 1
            self.most = max(self.most, self.now)
            await self.hold.wait()
            self.now -= 1
        return SimpleNamespace(ok=True, status=204)

    async def have(self, url: str, count: int) -> None:
        async with asyncio.timeout(20):
            while self.calls.count(url) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


class Town:
    def __init__(self, limits: DeliveryLimits) -> None:
        self.records, self.vault, self.receivers = MemoryRecords(), MemoryVault(), Receivers()
        outbound: Any = self.receivers
        self.deliveries = Deliveries(
            self.records, self.vault, outbound, lambda event: {"id": event.id}, stands, Metrics(), limits
        )

    async def hooks(self, owner: str, count: int) -> list[str]:
        urls = [f"https://{owner}/{n}" for n in range(count)]
        for url in urls:
            hook_id = new_id("hook")
            secret = await self.vault.wrap(bytes(32), secret_context(hook_id))
            hook = Webhook(hook_id, owner, url, ("file.*",), utc_now(), vault=self.vault.name, secret=secret)
            await self.records.add_webhook(hook, Event("webhook.created", hook_id, owner, owner), quota=100)
        return urls

    async def happen(self, owner: str, count: int) -> None:
        await self.records.add_events([Event("file.changed", f"{n}", owner, owner) for n in range(count)])


async def stands(_webhook: Webhook) -> str | None:
    return None


@asynccontextmanager
async def town(limits: DeliveryLimits = LIMITS) -> AsyncIterator[Town]:
    made = Town(limits)
    await made.vault.start()
    try:
        yield made
    finally:
        await made.deliveries.close()


async def test_one_makers_slow_receivers_leave_the_others_their_places() -> None:
    async with town() as here:
        slow = await here.hooks(SLOW, 6)
        (quick,) = await here.hooks(QUICK, 1)
        await here.happen(SLOW, 5)
        await here.happen(QUICK, 5)
        here.deliveries.start()
        await here.receivers.have(quick, 5)
        assert here.receivers.most == 2
        assert here.receivers.hold is not None
        here.receivers.hold.set()
        for url in slow:
            await here.receivers.have(url, 5)
        assert here.receivers.most == 2
        assert len(here.receivers.calls) == 35


async def test_a_turn_ends_after_so_many_calls_and_whoever_waited_longest_is_next() -> None:
    async with town(DeliveryLimits(every_s=0.01, at_once=1, at_once_each=1, turn_calls=2)) as here:
        one, two = await here.hooks(QUICK, 2)
        await here.happen(QUICK, 4)
        here.deliveries.start()
        await here.receivers.have(two, 4)
        await here.receivers.have(one, 4)
        assert here.receivers.calls == [one, one, two, two, one, one, two, two]


async def test_a_turn_ends_after_so_long() -> None:
    async with town(DeliveryLimits(every_s=0.01, at_once=1, at_once_each=1, turn_s=0.0)) as here:
        one, two = await here.hooks(QUICK, 2)
        await here.happen(QUICK, 2)
        here.deliveries.start()
        await here.receivers.have(two, 2)
        assert here.receivers.calls == [one, two, one, two]
