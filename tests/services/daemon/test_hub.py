"""Hubs: everybody who listens is told, in order, and one who is too slow is dropped without stopping the others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from atoll.domain.errors import QuotaExceeded
from atoll.services.daemon import hub as module
from atoll.services.daemon.hub import BYTES_MAX, MESSAGES_MAX, Hub, Hubs, Listener, event


def ignored(_channel: str) -> None: ...


async def heard(listener: Listener) -> Any:
    async with asyncio.timeout(5):
        message = await listener.next()
    return None if message is None else json.loads(message)


async def test_who_subscribed_is_told_and_who_did_not_is_not() -> None:
    hub = Hub()
    with hub.listening(ignored) as one, hub.listening(ignored) as other:
        one.channels.add("signals")
        hub.publish("signal", "signals", {"port": 1})
        hub.publish("sandbox.created", "", {"subdomain": "s"}, everybody=True)
        assert await heard(one) == {"type": "signal", "channel": "signals", "data": {"port": 1}}
        assert await heard(one) == await heard(other) == {"type": "sandbox.created", "data": {"subdomain": "s"}}
    hub.publish("signal", "signals", {})  # nobody listens any more


@pytest.mark.parametrize("size, count", [(1, MESSAGES_MAX + 1), (BYTES_MAX // 4, 6)], ids=["many", "large"])
async def test_w06_a_listener_that_reads_nothing_is_dropped_and_the_others_hear_on(size: int, count: int) -> None:
    hub = Hub()
    with hub.listening(ignored) as dead, hub.listening(ignored) as alive:
        dead.channels.add("c")
        alive.channels.add("c")
        for number in range(count):
            hub.publish("e", "c", {"number": number, "text": "x" * size})
            assert (await heard(alive))["data"]["number"] == number
        assert dead.dropped and not alive.dropped
        assert await heard(dead) is None
        hub.publish("e", "c", {"number": -1})
        assert (await heard(alive))["data"]["number"] == -1


async def test_what_one_listener_alone_gets_waits_for_it_and_never_has_it_dropped() -> None:
    hub = Hub()
    with hub.listening(ignored) as listener:
        message = event("e", "c", "x" * 100_000)

        async def flood() -> None:
            for _ in range(300):
                await listener.put(message)

        sender = asyncio.create_task(flood())
        await asyncio.sleep(0.02)
        assert not sender.done(), "more was taken than fits"
        for _ in range(300):
            assert await listener.next() == message
        await sender
        assert not listener.dropped


async def test_what_is_announced_reaches_who_listens_a_moment_later_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANNOUNCED_AFTER_S", (0.01, 0.05))
    hub = Hub()
    hub.announce("terminal:created", "terminal:t", {"id": "t"})
    with hub.listening(ignored) as late:
        assert (await heard(late))["data"] == {"id": "t"}
    assert not hub.idle
    await asyncio.sleep(0.07)
    assert hub.idle


async def test_sockets_of_one_sandbox_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOCKETS_MAX", 1)
    hub = Hub()
    with hub.listening(ignored), pytest.raises(QuotaExceeded), hub.listening(ignored):
        pass
    with hub.listening(ignored):
        pass


async def test_a_command_is_followed_from_where_its_last_follower_left() -> None:
    hub = Hub()
    hub.leave("command:c", 7)
    assert hub.resumed("command:c") == 7
    assert hub.resumed("command:c") == 0


async def test_hubs_that_nobody_listens_at_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HUBS_MAX", 2)
    hubs = Hubs()
    first = hubs.of("a")
    with first.listening(ignored):
        for name in "bcd":
            hubs.of(name)
        assert hubs.of("a") is first
