"""The throttle of logins: guesses run out, and who is no guesser is not kept out by one."""

from __future__ import annotations

import pytest

from atoll.domain.errors import RateLimited
from atoll.services.identity import throttling
from atoll.services.identity.throttling import LoginThrottle, TryLimits
from atoll.services.rates.local_counters import LocalCounters
from atoll.services.rates.shared_counters import SharedCounters
from atoll.testing.memory_records import MemoryRecords
from tests.services.identity.clocks import Time

LIMITS = TryLimits(
    pair_burst=3, pair_every_s=30, address_burst=5, address_every_s=5, username_burst=8, username_every_s=60
)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def throttle(time: Time) -> LoginThrottle:
    return LoginThrottle(LIMITS, LocalCounters(clock=time.monotonic))


async def tries(throttle: LoginThrottle, username: str, address: str) -> int:
    """How many there are left."""
    for number in range(100):
        try:
            await throttle.begin(username, address)
        except RateLimited:
            return number
    raise AssertionError("there is no end")


async def test_a15_one_address_runs_out_for_one_username_then_for_all(throttle: LoginThrottle) -> None:
    assert await tries(throttle, "ann", "a") == 3
    assert await tries(throttle, "ben", "a") == 2
    assert await tries(throttle, "ann", "b") == 3


async def test_a15_many_addresses_together_run_out_for_one_username(throttle: LoginThrottle) -> None:
    assert [await tries(throttle, "ann", f"a{number}") for number in range(4)] == [3, 3, 2, 0]
    assert await tries(throttle, "ben", "b") == 3


async def test_who_has_logged_in_from_there_is_not_kept_out_by_strangers(throttle: LoginThrottle) -> None:
    await throttle.begin("ann", "home")
    await throttle.succeed("ann", "home")
    for number in range(9):
        await tries(throttle, "ann", f"a{number}")
    await throttle.begin("ann", "home")


async def test_who_has_logged_in_from_there_is_not_kept_out_by_who_shares_the_address(throttle: LoginThrottle) -> None:
    await throttle.begin("ann", "home")
    await throttle.succeed("ann", "home")
    for number in range(9):
        await tries(throttle, f"u{number}", "home")
    assert await tries(throttle, "ben", "home") == 0
    assert await tries(throttle, "ann", "home") == 3


async def test_attempts_that_name_nobody_run_out_apart_from_those_with_a_username(throttle: LoginThrottle) -> None:
    for _ in range(5):
        await throttle.fail_unnamed("a")
    with pytest.raises(RateLimited):
        await throttle.fail_unnamed("a")
    await throttle.fail_unnamed("b")
    assert await tries(throttle, "ann", "a") == 3


async def test_successes_cost_nothing(throttle: LoginThrottle) -> None:
    for _ in range(50):
        await throttle.begin("ann", "a")
        await throttle.succeed("ann", "a")
    assert await tries(throttle, "ann", "a") == 3


async def test_time_gives_tries_back_and_the_answer_says_when(throttle: LoginThrottle, time: Time) -> None:
    assert await tries(throttle, "ann", "a") == 3
    with pytest.raises(RateLimited) as refused:
        await throttle.begin("ann", "a")
    assert refused.value.retry_after_s == 30
    time.pass_s(29)
    with pytest.raises(RateLimited) as refused:
        await throttle.begin("ann", "a")
    assert refused.value.retry_after_s == 1
    time.pass_s(1)
    await throttle.begin("ann", "a")
    time.pass_s(10_000)
    assert await tries(throttle, "ann", "a") == 3


async def test_what_it_remembers_is_bounded(throttle: LoginThrottle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "KNOWN_MAX", 10)
    for number in range(100):
        await throttle.begin(f"u{number}", f"a{number}")
        await throttle.succeed(f"u{number}", f"a{number}")
    assert len(throttle._known) == 10  # pyright: ignore[reportPrivateUsage]


async def test_what_is_refused_costs_nothing_of_what_was_not_out(throttle: LoginThrottle) -> None:
    assert await tries(throttle, "ann", "a") == 3
    for _ in range(20):
        assert await tries(throttle, "ann", "a") == 0
    assert await tries(throttle, "ben", "a") == 2
    await throttle.begin("cat", "b")
    for _ in range(20):
        assert await tries(throttle, "ben", "a") == 0  # the address is out: nothing of the username goes
    assert await tries(throttle, "ben", "c") == 3


async def test_a15_guesses_at_several_servers_count_together_and_successes_cost_nothing() -> None:
    records = MemoryRecords()
    here, there = (LoginThrottle(LIMITS, SharedCounters(records)) for _ in range(2))
    for throttle in (here, there) * 5:
        await throttle.begin("ann", "home")
        await throttle.succeed("ann", "home")
    await here.begin("ann", "home")
    assert await tries(there, "ann", "home") == 2
    assert await tries(here, "ann", "home") == 0
    assert await tries(here, "ben", "home") == 3
    assert await tries(there, "cat", "home") == 2


async def test_no_store_holds_what_was_typed_as_a_username(time: Time) -> None:
    records = MemoryRecords()
    await tries(LoginThrottle(LIMITS, SharedCounters(records)), "correct horse battery \ud800", "home")
    assert records._rates and "horse" not in repr(records._rates)  # pyright: ignore[reportPrivateUsage]
