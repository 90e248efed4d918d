"""With runtimes that misbehave every call keeps its deadline, every state stays legal, and nothing leaks (C13)."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from atoll.domain.errors import AtollError, Conflict, DeadlineExceeded, Internal
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import ENDED, TRANSITIONS, SandboxSpec, SandboxState
from atoll.runtimes.base import Runtime
from atoll.testing.fake_runtime import FakeRuntime
from atoll.testing.misbehaving import (
    BadRuntime,
    Fault,
    LyingRuntime,
    NeverRuntime,
    SlowBadRuntime,
    SlowRuntime,
    VanishingRuntime,
)

from .conftest import ALICE, House, until

S = SandboxState
BOUND_S = 3.0  # every limit of the tests' house is half a second


async def _settled(house: House) -> None:
    """A well-behaved runtime and one pass of the reconciler leave no live record without a sandbox, nor the reverse."""
    await house.restart(FakeRuntime(house.host))
    await house.sandboxes.reconciler.run()
    live = {s.id for s in await house.records.list_sandboxes(removed=None) if s.live}
    assert live == set(house.host.sandboxes)


@pytest.mark.parametrize("kind", [NeverRuntime, BadRuntime, SlowBadRuntime])
@pytest.mark.parametrize("calls", [{"make"}, {"make", "destroy"}])
async def test_a_make_that_fails_is_recorded_and_leaves_nothing(house: House, kind: type, calls: set[str]) -> None:
    await house.restart(kind(house.host, calls=calls))
    started = time.monotonic()
    with pytest.raises((Internal, DeadlineExceeded)):
        await house.create()
    assert time.monotonic() - started < BOUND_S
    (record,) = await house.sandboxes.list(ALICE)
    assert record.state is S.FAILED
    assert record.reason
    assert "broke" not in record.reason  # a fault's own words are not for tenants
    await _settled(house)
    assert not house.host.sandboxes


@pytest.mark.parametrize("kind", [NeverRuntime, BadRuntime, SlowBadRuntime, SlowRuntime])
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_an_end_is_recorded_whatever_the_runtime_does(house: House, kind: type, end: str) -> None:
    sandbox = await house.create("sleep", "100")
    await house.restart(kind(house.host, calls={"destroy", "inside", "stats", "find"}))
    started = time.monotonic()
    ended = await getattr(house.sandboxes, end)(ALICE, sandbox.id)
    assert time.monotonic() - started < BOUND_S
    assert ended.state is (S.STOPPED if end == "stop" else S.KILLED)
    assert await house.state(sandbox) is ended.state
    with pytest.raises(Conflict):
        await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
    await _settled(house)
    assert not house.host.sandboxes


@pytest.mark.parametrize("kind", [NeverRuntime, BadRuntime, SlowBadRuntime])
async def test_calls_inside_keep_their_deadline(house: House, kind: type) -> None:
    sandbox = await house.create()
    await house.restart(kind(house.host, calls={"inside", "find", "stats", "set_deadline", "pause", "resume"}))
    processes, files = house.sandboxes.processes, house.sandboxes.files

    async def chunks():
        yield b"x"

    calls = [
        lambda: processes.start(ALICE, sandbox.id, ProcessSpec(("true",))),
        lambda: processes.run(ALICE, sandbox.id, ProcessSpec(("true",), timeout_s=0.1)),
        lambda: processes.attach(ALICE, sandbox.id, "p1"),
        lambda: processes.list(ALICE, sandbox.id),
        lambda: processes.signal(ALICE, sandbox.id, "p1", 15),
        lambda: processes.stop(ALICE, sandbox.id, "p1", grace_s=0),
        lambda: processes.wait(ALICE, sandbox.id, "p1", timeout_s=0.2),
        lambda: files.read(ALICE, sandbox.id, "/etc/hostname"),
        lambda: files.list(ALICE, sandbox.id, "/"),
        lambda: files.stat(ALICE, sandbox.id, "/"),
        lambda: files.make_dir(ALICE, sandbox.id, "/x"),
        lambda: files.remove(ALICE, sandbox.id, "/x"),
        lambda: files.move(ALICE, sandbox.id, "/x", "/y"),
        lambda: house.sandboxes.keepalive(ALICE, sandbox.id),
        lambda: house.sandboxes.pause(ALICE, sandbox.id),
        lambda: house.sandboxes.resume(ALICE, sandbox.id),
    ]
    started = time.monotonic()
    for outcome in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
        assert isinstance(outcome, AtollError), outcome
    assert time.monotonic() - started < BOUND_S
    usage = await house.sandboxes.usage(ALICE, sandbox.id)
    assert usage.duration_s > 0  # by our own clock
    await _settled(house)


async def test_a_slow_runtime_is_only_slow(house: House) -> None:
    await house.restart(SlowRuntime(house.host))
    sandbox = await house.create("sh", "-c", "echo slow; cat")
    result = await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("echo", "hi")))
    assert result.stdout == b"hi\n"
    assert (await house.sandboxes.stop(ALICE, sandbox.id)).state is S.STOPPED
    assert not house.host.sandboxes


@pytest.mark.parametrize("command", [(), ("sleep", "100")])
async def test_what_a_lying_runtime_says_is_running_and_does_not_answer_is_lost(
    house: House, command: tuple[str, ...]
) -> None:
    lying = LyingRuntime(house.host)
    await house.restart(lying)
    sandbox = await house.create(*command)
    await lying.lose(sandbox.id)
    for _ in range(6):
        with pytest.raises(AtollError):
            await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
    await until(lambda: _ended(house, sandbox.id))
    record = await house.record(sandbox)
    assert (record.state, record.reason) == (S.FAILED, "lost")
    with pytest.raises(Conflict, match="session not running: status=failed"):
        await house.sandboxes.files.list(ALICE, sandbox.id, "/")


async def test_the_watcher_of_a_main_process_notices_a_lie_by_itself(house: House) -> None:
    lying = LyingRuntime(house.host)
    await house.restart(lying)
    sandbox = await house.create("sleep", "100")
    await lying.lose(sandbox.id)
    await until(lambda: _ended(house, sandbox.id))
    assert (await house.record(sandbox)).reason == "lost"


async def test_one_that_vanished_is_noticed_by_the_next_call(house: House) -> None:
    await house.restart(VanishingRuntime(house.host))
    sandbox = await house.create()
    await until(lambda: not house.host.sandboxes)
    with pytest.raises(Conflict, match="session not running: status=failed"):
        await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("true",)))
    record = await house.record(sandbox)
    assert (record.state, record.reason) == (S.FAILED, "lost")


async def test_one_that_vanished_is_noticed_by_the_timer(house: House) -> None:
    await house.restart(VanishingRuntime(house.host))
    sandboxes = [await house.create() for _ in range(4)]
    await until(lambda: not house.host.sandboxes)
    started = time.monotonic()
    await house.sandboxes.reconciler.run()
    assert time.monotonic() - started < BOUND_S
    for sandbox in sandboxes:
        assert await house.state(sandbox) is S.FAILED


async def test_one_that_vanishes_under_a_command_says_so(house: House) -> None:
    await house.restart(VanishingRuntime(house.host, vanish_s=0.1))
    sandbox = await house.create()
    with pytest.raises(Conflict, match="status=failed"):
        await house.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("sleep", "100")))


async def test_a_runtime_that_is_down_at_the_start_changes_no_record(house: House) -> None:
    sandbox = await house.create()
    for runtime in (BadRuntime(house.host, calls={"list"}), NeverRuntime(house.host, calls={"list"})):
        with pytest.raises((DeadlineExceeded, Fault)):
            await house.restart(runtime)
        assert await house.state(sandbox) is S.RUNNING
    await house.restart(FakeRuntime(house.host))
    assert await house.state(sandbox) is S.RUNNING


async def test_states_stay_legal_in_a_storm(house: House) -> None:
    """Many operations against every kind at once; the events of each record then tell a legal path."""
    kinds: list[Runtime] = [
        SlowRuntime(house.host),
        BadRuntime(house.host, calls={"destroy", "stats"}),
        SlowBadRuntime(house.host, calls={"destroy", "inside"}),
        VanishingRuntime(house.host, vanish_s=0.02),
    ]
    for runtime in kinds:
        await house.restart(runtime)

        async def life(number: int) -> None:
            try:
                sandbox = await house.sandboxes.create(ALICE, SandboxSpec(command=("sleep", "0.05")))
                end = (house.sandboxes.stop, house.sandboxes.kill)[number % 2]
                await asyncio.sleep(0.01 * number)
                await end(ALICE, sandbox.id)
            except AtollError:
                pass

        await asyncio.gather(*(life(number) for number in range(5)))
    await _settled(house)
    paths = {
        "sandbox.created": S.PENDING,
        "sandbox.started": S.RUNNING,
        "sandbox.stopping": S.STOPPING,
        "sandbox.stopped": S.STOPPED,
        "sandbox.exited": S.STOPPED,
        "sandbox.killed": S.KILLED,
        "sandbox.failed": S.FAILED,
        "sandbox.ended": S.FAILED,
    }
    for record in await house.records.list_sandboxes(removed=None):
        assert record.state in ENDED
        states = [paths[event.action] for event in await house.records.list_events(target=record.id)]
        for before, after in pairwise(states):
            assert after in TRANSITIONS[before], states


async def _ended(house: House, sandbox_id: str) -> bool:
    return not (await house.record(sandbox_id)).live
