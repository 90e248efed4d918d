"""Shared counters: several servers give no more than one would, on PostgreSQL too; alone while the store is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.domain.rate import Rate, Window
from atoll.records.base import Records
from atoll.records.sql import open_records
from atoll.services.rates.shared_counters import ALONE_S, LEASE_S, SharedCounters
from atoll.testing.memory_records import MemoryRecords

SLOW = Rate(0.001, 10)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def stores(database: str | None) -> AsyncIterator[tuple[Records, Records]]:
    if database is None:
        store = MemoryRecords()
        yield store, store
        return
    two = open_records(database), open_records(database)
    for one in two:
        await one.start()
    yield two
    for one in two:
        await one.close()


@pytest.mark.parametrize("pace", [SLOW, Window(10, 900.0)], ids=["rate", "window"])
async def test_a15_two_servers_give_exactly_what_one_would(
    stores: tuple[Records, Records], pace: Rate | Window
) -> None:
    servers = [SharedCounters(store) for store in stores]
    spent = [await servers[n % 2].spend("a", pace) for n in range(15)]
    assert [one.wait_s == 0 for one in spent] == [True] * 10 + [False] * 5
    assert [one.remaining for one in spent[:10]] == list(range(9, -1, -1))
    assert all(0 < one.reset_s <= 10_000 for one in spent)


async def test_what_one_server_gives_back_another_may_spend(stores: tuple[Records, Records]) -> None:
    here, there = (SharedCounters(store) for store in stores)
    spent = [await here.spend("a", SLOW) for _ in range(11)]
    assert spent[-1].wait_s > 0 and here.left("a", SLOW) > 0
    for _ in range(2):
        await here.give_back("a")
    assert here.left("a", SLOW) == 0
    assert [(await one.spend("a", SLOW)).wait_s == 0 for one in (there, here, there)] == [True, True, False]


async def test_c10_without_a_store_what_is_given_back_is_this_servers_own() -> None:
    store = MemoryRecords()
    counters, pace = SharedCounters(store, clock=Clock()), Rate(0.001, 1)
    store.down = True
    await counters.give_back("a")
    assert [(await counters.spend("a", pace)).wait_s == 0 for _ in range(2)] == [True, False]
    await counters.give_back("a")
    assert (await counters.spend("a", pace)).wait_s == 0


async def test_fast_rates_are_taken_some_at_a_time_and_never_above_the_burst(stores: tuple[Records, Records]) -> None:
    pace = Rate(100.0, 400)
    clock = Clock()  # nothing flows in here, and little in the store while this runs
    servers = [SharedCounters(store, clock=clock) for store in stores]
    asks = 0
    take = stores[0].take_tokens

    async def counted(*args: object) -> object:
        nonlocal asks
        asks += 1
        return await take(*args)  # type: ignore[arg-type]

    stores[0].take_tokens = counted  # type: ignore[method-assign, assignment]
    told = [await servers[0].spend("a", pace) for _ in range(100)]
    assert all(one.wait_s == 0 for one in told) and asks == 10
    assert told[0].remaining >= told[50].remaining >= told[-1].remaining


async def test_a_lease_is_forgotten_after_a_while() -> None:
    clock, store = Clock(), MemoryRecords()
    counters = SharedCounters(store, clock=clock)
    pace = Rate(100.0, 400)
    await counters.spend("a", pace)
    held = counters._leases["a"].tokens
    clock.now += LEASE_S
    await counters.spend("a", pace)
    assert held == 9 == counters._leases["a"].tokens


async def test_who_was_refused_does_not_ask_the_store_again_before_the_wait_is_over() -> None:
    clock, store = Clock(), MemoryRecords()
    counters = SharedCounters(store, clock=clock)
    await counters.spend("a", Rate(0.001, 1))
    refused = await counters.spend("a", Rate(0.001, 1))
    assert refused.wait_s > 900 and counters.left("a", Rate(0.001, 1)) == refused.wait_s
    store.down = True
    assert (await counters.spend("a", Rate(0.001, 1))).wait_s == refused.wait_s


async def test_c10_without_a_store_each_server_counts_alone_and_asks_again_later() -> None:
    clock, store = Clock(), MemoryRecords()
    counters = SharedCounters(store, clock=clock)
    pace = Window(2, 900.0)
    store.down = True
    assert [(await counters.spend("a", pace)).wait_s == 0 for _ in range(3)] == [True, True, False]
    assert counters.left("a", pace) > 0
    store.down = False
    assert (await counters.spend("a", pace)).wait_s > 0
    clock.now += ALONE_S
    assert (await counters.spend("a", pace)).remaining == 1


async def test_who_asks_at_once_waits_for_one_answer(stores: tuple[Records, Records]) -> None:
    servers = [SharedCounters(store) for store in stores]
    spent = await asyncio.gather(*(servers[n % 2].spend("a", SLOW) for n in range(60)))
    assert sum(one.wait_s == 0 for one in spent) == 10
    assert not any(server._asking for server in servers)


async def test_who_gives_up_waiting_keeps_nobody_from_it() -> None:
    store = MemoryRecords()
    counters = SharedCounters(store)
    gate = asyncio.Event()
    take = store.take_tokens

    async def slow(*args: Any) -> Any:
        await gate.wait()
        return await take(*args)

    store.take_tokens = slow  # type: ignore[method-assign]
    first, second = (asyncio.create_task(counters.spend("a", SLOW)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])
    gate.set()
    assert (await second).remaining == 9
    assert not counters._asking
