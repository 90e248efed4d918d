"""The throttle of logins: guesses run out, and who is no guesser is not kept out by one."""

from __future__ import annotations

import pytest

from atoll.domain.errors import RateLimited
from atoll.services.identity import throttling
from atoll.services.identity.throttling import LoginThrottle, TryLimits
from tests.services.identity.clocks import Time

LIMITS = TryLimits(
    pair_burst=3, pair_every_s=30, address_burst=5, address_every_s=5, username_burst=8, username_every_s=60
)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def throttle(time: Time) -> LoginThrottle:
    return LoginThrottle(LIMITS, time.monotonic)


def tries(throttle: LoginThrottle, username: str, address: str) -> int:
    """How many there are left."""
    for number in range(100):
        try:
            throttle.begin(username, address)
        except RateLimited:
            return number
    raise AssertionError("there is no end")


def test_a15_one_address_runs_out_for_one_username_then_for_all(throttle: LoginThrottle) -> None:
    assert tries(throttle, "ann", "a") == 3
    assert tries(throttle, "ben", "a") == 2
    assert tries(throttle, "ann", "b") == 3


def test_a15_many_addresses_together_run_out_for_one_username(throttle: LoginThrottle) -> None:
    assert [tries(throttle, "ann", f"a{number}") for number in range(4)] == [3, 3, 2, 0]
    assert tries(throttle, "ben", "b") == 3


def test_who_has_logged_in_from_there_is_not_kept_out_by_strangers(throttle: LoginThrottle) -> None:
    throttle.begin("ann", "home")
    throttle.succeed("ann", "home")
    for number in range(9):
        tries(throttle, "ann", f"a{number}")
    throttle.begin("ann", "home")


def test_successes_cost_nothing(throttle: LoginThrottle) -> None:
    for _ in range(50):
        throttle.begin("ann", "a")
        throttle.succeed("ann", "a")
    assert tries(throttle, "ann", "a") == 3


def test_time_gives_tries_back_and_the_answer_says_when(throttle: LoginThrottle, time: Time) -> None:
    assert tries(throttle, "ann", "a") == 3
    with pytest.raises(RateLimited) as refused:
        throttle.begin("ann", "a")
    assert refused.value.retry_after_s == 30
    time.pass_s(29)
    with pytest.raises(RateLimited) as refused:
        throttle.begin("ann", "a")
    assert refused.value.retry_after_s == 1
    time.pass_s(1)
    throttle.begin("ann", "a")
    time.pass_s(10_000)
    assert tries(throttle, "ann", "a") == 3


def test_what_it_remembers_is_bounded(throttle: LoginThrottle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "NAMES_MAX", 10)
    monkeypatch.setattr(throttling, "KNOWN_MAX", 10)
    for number in range(100):
        throttle.begin(f"u{number}", f"a{number}")
        throttle.succeed(f"u{number}", f"a{number}")
    sizes = [
        len(throttle._known),  # pyright: ignore[reportPrivateUsage]
        *(len(kind._left) for kind in (throttle._pairs, throttle._addresses, throttle._usernames)),  # pyright: ignore[reportPrivateUsage]
    ]
    assert sizes == [10, 10, 10, 10]
