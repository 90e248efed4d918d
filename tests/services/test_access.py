"""Whether a sandbox answers: what counts against it, and what is somebody else's fault."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from atoll.domain.errors import AtollError, DeadlineExceeded, NotFound, Unavailable
from atoll.domain.sandbox import Sandbox, SandboxState
from atoll.services.access import Access
from atoll.services.lives import Live
from atoll.services.patience import patience
from atoll.testing.fake_runtime import FakeRuntime
from atoll.testing.misbehaving import BadRuntime, LyingRuntime, NeverRuntime

from .conftest import ALICE, House


def access_of(house: House) -> Access:
    return house.sandboxes.files._access  # pyright: ignore[reportPrivateUsage]


def live_of(house: House, sandbox: Sandbox) -> Live:
    live = access_of(house).lives.get(sandbox.id)
    assert live is not None
    return live


async def test_time_in_which_the_loop_stood_still_is_nobodys_silence() -> None:
    async def answer() -> str:
        for _ in range(5):
            time.sleep(0.2)  # noqa: ASYNC251 - somebody else's work, longer than the patience
            await asyncio.sleep(0)
        return "here"

    assert await patience(0.1, answer(), "the answer") == "here"


async def test_silence_of_a_loop_that_runs_has_an_end() -> None:
    ended = asyncio.Event()

    async def silent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(DeadlineExceeded, match=r"the answer took longer than 0\.1 s"):
        await patience(0.1, silent(), "the answer")
    await ended.wait()


@pytest.mark.parametrize("calls", [{"inside"}, {"find"}], ids=["sidekick", "runtime"])
@pytest.mark.parametrize("kind", [NeverRuntime, BadRuntime])
async def test_what_is_silent_is_not_lost(
    house: House, kind: type, calls: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.services.access.PING_S", 0.02)
    house.limits = replace(house.limits, unanswered_apart_s=0.0)
    sandbox = await house.create()
    await house.restart(kind(house.host, calls=calls))
    live = live_of(house, sandbox)
    for _ in range(6):
        assert not await access_of(house).look(live)
    assert await house.state(sandbox) is SandboxState.RUNNING
    await house.restart(FakeRuntime(house.host))
    assert await access_of(house).look(live_of(house, sandbox))


async def test_many_who_miss_it_look_once_and_what_they_find_counts_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.limits = replace(house.limits, unanswered_apart_s=3600.0)
    lying = LyingRuntime(house.host)
    await house.restart(lying)
    sandbox = await house.create()
    await lying.lose(sandbox.id)
    looks, find = 0, lying.find

    async def counted(sandbox_id: str) -> object:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.05)
        return await find(sandbox_id)

    monkeypatch.setattr(lying, "find", counted)
    stats = (house.sandboxes.files.stat(ALICE, sandbox.id, "/absent") for _ in range(20))
    for told in await asyncio.gather(*stats, return_exceptions=True):
        assert isinstance(told, Unavailable)
    assert looks == 1
    for _ in range(5):
        with pytest.raises(AtollError):
            await house.sandboxes.files.stat(ALICE, sandbox.id, "/absent")
    assert (live_of(house, sandbox).unanswered, await house.state(sandbox)) == (1, SandboxState.RUNNING)


async def test_who_goes_away_takes_nobody_elses_look_along(house: House) -> None:
    sandbox = await house.create()
    access, live = access_of(house), live_of(house, sandbox)
    first = asyncio.create_task(access.look(live))
    await asyncio.sleep(0)
    second = asyncio.create_task(access.look(live))
    await asyncio.sleep(0)
    first.cancel()
    assert await second


async def test_a_frozen_one_is_there_without_a_word(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.services.access.PING_S", 0.02)
    sandbox = await house.create()
    await house.restart(NeverRuntime(house.host, calls={"inside"}))
    await house.runtime.pause(sandbox.id)
    assert await access_of(house).look(live_of(house, sandbox))


async def test_a_file_that_is_not_there_is_just_that(house: House) -> None:
    sandbox = await house.create()
    with pytest.raises(NotFound):
        await house.sandboxes.files.stat(ALICE, sandbox.id, "/absent")
    assert live_of(house, sandbox).unanswered == 0
