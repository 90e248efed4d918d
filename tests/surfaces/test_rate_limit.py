"""Token buckets: what may come at once, what may go on, and that they cannot grow without end."""

from __future__ import annotations

from atoll.surfaces.rate_limit import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_the_rate_holds() -> None:
    clock = Clock()
    buckets = TokenBuckets(2.0, 5, clock=clock)
    assert [buckets.spend("a") for _ in range(7)] == [0, 0, 0, 0, 0, 1, 1]
    clock.now += 0.5
    assert [buckets.spend("a"), buckets.spend("a")] == [0, 1]
    clock.now += 1000
    assert sum(buckets.spend("a") == 0 for _ in range(10)) == 5


def test_the_wait_that_is_told_is_enough() -> None:
    clock = Clock()
    buckets = TokenBuckets(0.1, 1, clock=clock)
    assert buckets.spend("a") == 0
    wait_s = buckets.spend("a")
    assert wait_s == 10
    clock.now += wait_s
    assert buckets.spend("a") == 0


def test_looking_takes_nothing_and_names_are_apart() -> None:
    clock = Clock()
    buckets = TokenBuckets(1.0, 1, clock=clock)
    assert [buckets.left("a"), buckets.left("a"), buckets.spend("a"), buckets.left("a")] == [0, 0, 0, 1]
    assert buckets.spend("b") == 0


def test_the_longest_unseen_is_forgotten_first() -> None:
    buckets = TokenBuckets(0.001, 1, limit=3, clock=Clock())
    for name in ("a", "b", "c", "a", "d"):
        buckets.spend(name)
    assert buckets.left("a") > 0 and buckets.left("d") > 0
    assert buckets.left("b") == 0
