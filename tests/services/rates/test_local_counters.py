"""Local counters: what may come at once, what may go on, what a window holds, and that they cannot grow without end."""

from __future__ import annotations

from atoll.domain.rate import Pace, Rate, Window
from atoll.services.rates.local_counters import LocalCounters


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def waits(counters: LocalCounters, name: str, pace: Pace, times: int) -> list[int]:
    return [(await counters.spend(name, pace)).wait_s for _ in range(times)]


async def test_a_burst_passes_then_the_rate_holds() -> None:
    clock = Clock()
    counters, pace = LocalCounters(clock=clock), Rate(2.0, 5)
    assert await waits(counters, "a", pace, 7) == [0, 0, 0, 0, 0, 1, 1]
    clock.now += 0.5
    assert await waits(counters, "a", pace, 2) == [0, 1]
    clock.now += 1000
    assert (await waits(counters, "a", pace, 10)).count(0) == 5


async def test_the_wait_that_is_told_is_enough() -> None:
    clock = Clock()
    counters = LocalCounters(clock=clock)
    for pace in (Rate(0.1, 1), Window(1, 10.0)):
        assert await waits(counters, str(pace), pace, 2) == [0, 10]
        clock.now += 10
        assert await waits(counters, str(pace), pace, 1) == [0]


async def test_a_window_begins_with_its_first_request() -> None:
    clock = Clock()
    counters, pace = LocalCounters(clock=clock), Window(2, 60.0)
    first = await counters.spend("a", pace)
    assert (first.remaining, first.reset_s) == (1, 60)
    clock.now += 59
    second = await counters.spend("a", pace)
    assert (second.remaining, second.reset_s, second.wait_s) == (0, 1, 0)
    assert (await counters.spend("a", pace)).wait_s == 1
    clock.now += 1
    assert (await counters.spend("a", pace)).remaining == 1


async def test_what_is_given_back_can_be_spent_again_and_no_more_than_that() -> None:
    clock = Clock()
    counters = LocalCounters(clock=clock)
    for pace in (Rate(1.0, 2), Window(2, 60.0)):
        name = str(pace)
        await counters.give_back(name)  # of which nothing is known
        assert await waits(counters, name, pace, 2) == [0, 0]
        await counters.give_back(name)
        assert [wait == 0 for wait in await waits(counters, name, pace, 2)] == [True, False]
        for _ in range(5):
            await counters.give_back(name)
        assert [wait == 0 for wait in await waits(counters, name, pace, 3)] == [True, True, False]


async def test_what_is_refused_costs_nothing() -> None:
    clock = Clock()
    counters, pace = LocalCounters(clock=clock), Rate(1.0, 1)
    await waits(counters, "a", pace, 100)
    clock.now += 1
    assert await waits(counters, "a", pace, 1) == [0]


async def test_looking_takes_nothing_and_names_are_apart() -> None:
    counters, pace = LocalCounters(clock=Clock()), Rate(1.0, 1)
    assert [counters.left("a", pace), counters.left("a", pace)] == [0, 0]
    assert await waits(counters, "a", pace, 1) == [0]
    assert counters.left("a", pace) == 1 and counters.left("a", Rate(1.0, 2)) == 0
    assert await waits(counters, "b", pace, 1) == [0]


async def test_the_longest_unseen_is_forgotten_first() -> None:
    counters, pace = LocalCounters(3, Clock()), Rate(0.001, 1)
    for name in ("a", "b", "c"):
        await counters.spend(name, pace)
    assert all(counters.left(name, pace) > 0 for name in "abc")
    for name in ("a", "d"):
        await counters.spend(name, pace)
    assert counters.left("a", pace) > 0 and counters.left("d", pace) > 0
    assert counters.left("b", pace) == 0
