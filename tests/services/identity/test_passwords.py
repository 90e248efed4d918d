"""Passwords: what one must be, and that its hash tells nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from atoll.domain.errors import InvalidInput, Unavailable
from atoll.services.identity import passwords
from atoll.services.identity.passwords import Passwords
from tests.services.identity.clocks import cheap_passwords

GOOD = "correct horse battery ☃"


async def test_a_password_opens_its_own_hash_only() -> None:
    of = cheap_passwords()
    stored = await of.hash(GOOD)
    assert stored.startswith("$argon2id$") and GOOD not in stored
    assert stored != await of.hash(GOOD)
    assert await of.verify(stored, GOOD)
    for wrong in (GOOD + " ", GOOD.upper(), "", "x" * 2000, "\ud800", "a\0b"):
        assert not await of.verify(stored, wrong)


@pytest.mark.parametrize("stored", [None, "", "nonsense", "$argon2id$v=19$m=8,t=1,p=1$YQ$"])
@pytest.mark.parametrize("password", [GOOD, "", "\ud800"])
async def test_without_a_hash_or_with_a_broken_one_nothing_matches(stored: str | None, password: str) -> None:
    assert not await cheap_passwords().verify(stored, password)


async def test_who_does_not_exist_costs_as_much_as_who_does(monkeypatch: pytest.MonkeyPatch) -> None:
    of = cheap_passwords()
    stored, seen = await of.hash(GOOD), []
    real = of._matches  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(of, "_matches", lambda a, b: seen.append((a.rpartition("$")[0].count("$"), b)) or real(a, b))
    await of.verify(stored, "guess")
    await of.verify(None, "guess")
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "password", ["", "short", "a" * 12, "ababababababab", "x" * 1025, "my name is ann!", "\ud800 is no text at all"]
)
def test_a_weak_password_is_refused_and_never_repeated(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cheap_passwords().check(password, "ann")
    assert refused.value.field == "password"
    assert not password or password not in refused.value.message


def test_the_least_length_is_a_setting() -> None:
    cheap_passwords(8).check("12345678", "ann")
    with pytest.raises(InvalidInput):
        cheap_passwords(9).check("12345678", "ann")


async def test_a_hash_of_other_costs_is_outdated() -> None:
    stored = await cheap_passwords().hash(GOOD)
    assert not cheap_passwords().is_outdated(stored)
    assert Passwords(time_cost=2, memory_kib=8, parallelism=1).is_outdated(stored)


async def test_few_are_hashed_at_a_time_off_the_loop_and_a_bounded_number_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 5)
    of, go_on = cheap_passwords(), threading.Event()
    running: list[str] = []

    def slow(password: str) -> str:
        running.append(threading.current_thread().name)
        go_on.wait(10)
        return password

    monkeypatch.setattr(of, "_hasher", type("Slow", (), {"hash": staticmethod(slow)})())
    tasks = [asyncio.create_task(of.hash(f"{number}")) for number in range(8)]
    try:
        await asyncio.sleep(0.1)
        assert len(running) <= passwords.AT_ONCE
        assert threading.current_thread().name not in running
    finally:
        go_on.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in done] == [str] * 5 + [Unavailable] * 3
    assert await of.hash("later") == "later"


async def test_who_goes_away_while_a_password_is_hashed_makes_no_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    of, go_on = cheap_passwords(), threading.Event()
    running: list[str] = []

    def slow(password: str) -> str:
        running.append(password)
        go_on.wait(10)
        return password

    monkeypatch.setattr(of, "_hasher", type("Slow", (), {"hash": staticmethod(slow)})())
    try:
        for number in range(4):
            task = asyncio.create_task(of.hash(f"{number}"))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
        assert running == ["0", "1"], "64 MiB each: no more than that at a time"
    finally:
        go_on.set()
    assert await of.hash("later") == "later"
    assert running == ["0", "1", "later"], "what nobody waits for any more is not begun"


async def test_a15_strangers_fill_their_places_and_never_those_of_who_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("WAITING_MAX", 8), ("STRANGERS_MAX", 5), ("STRANGERS_OF_ADDRESS_MAX", 2)):
        monkeypatch.setattr(passwords, name, most)
    of, go_on = cheap_passwords(), threading.Event()
    stored = await of.hash(GOOD)
    real = of._matches  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(of, "_matches", lambda a, b: go_on.wait(10) and real(a, b))
    waiting = [asyncio.create_task(of.verify(stored, "guess", stranger=address)) for address in "aaaabcdef"]
    waiting += [asyncio.create_task(of.verify(stored, GOOD)) for _ in range(4)]
    try:
        await asyncio.sleep(0.1)
    finally:
        go_on.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    strangers, known = [type(one) for one in done[:9]], done[9:]
    assert strangers == [bool, bool, Unavailable, Unavailable, bool, bool, bool, Unavailable, Unavailable]
    assert [type(one) for one in known] == [bool, bool, bool, Unavailable] and known[:3] == [True] * 3
    assert not of._strangers  # pyright: ignore[reportPrivateUsage]
