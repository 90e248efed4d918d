"""Suspensions: a sandbox rests with its files, its environment and its ports, and the next use wakes it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from atoll.domain import crash
from atoll.domain.errors import Conflict, Forbidden, NotFound, QuotaExceeded, Unavailable
from atoll.domain.event import Event
from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import NetworkMode, Port, Resources, Sandbox, SandboxSpec, SandboxState
from atoll.domain.workspace import WorkspaceMount
from atoll.runtimes.base import Ended
from atoll.services.endings import Endings
from atoll.services.keys import Keys
from atoll.services.saved_log import earlier_path, log_path
from atoll.services.workspaces.views import Ran
from tests.services.conftest import ALICE, BOB, until
from tests.services.test_ports import round_trip
from tests.services.workspaces.workshop import Workshop, shop

__all__ = ["shop"]


async def made(shop: Workshop, **fields: object) -> Sandbox:
    if await shop.records.find_workspace(ALICE.id, "w") is None:
        await shop.create()
    spec = SandboxSpec(workspaces=(WorkspaceMount("w"),), **fields)  # type: ignore[arg-type]
    return await shop.sandboxes.create(ALICE, spec)


async def said(shop: Workshop, sandbox: Sandbox, line: str) -> bytes:
    return (await shop.sandboxes.processes.run(ALICE, sandbox.id, ProcessSpec(("sh", "-c", line)))).stdout


async def state(shop: Workshop, sandbox: Sandbox) -> SandboxState:
    return (await shop.sandboxes.get(ALICE, sandbox.id)).state


async def test_it_rests_and_its_next_use_wakes_it(shop: Workshop) -> None:
    sandbox = await made(shop, env={"SECRET": "s3cr3t"})
    await said(shop, sandbox, "echo kept > /workspace/note")
    rested = await shop.sandboxes.suspend(ALICE, sandbox.id)
    assert (rested.state, rested.reason) == (SandboxState.SUSPENDED, "suspended")
    assert shop.host.sandboxes == {}
    assert await said(shop, sandbox, "cat /workspace/note") == b"kept\n"
    assert b"SECRET=s3cr3t" in await said(shop, sandbox, "env")
    again = await shop.sandboxes.get(ALICE, sandbox.id)
    assert (again.state, again.ended_at, again.reason) == (SandboxState.RUNNING, None, None)


async def test_rest_takes_a_revision(shop: Workshop) -> None:
    sandbox = await made(shop)
    await said(shop, sandbox, "echo kept > /workspace/note")
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    for _ in range(100):
        if "note" in {path.decode() for path in await shop.files("w")}:
            break
        await asyncio.sleep(0.05)
    assert await shop.files("w") == {b"note": b"kept\n"}


async def test_every_crash_point_of_rest_is_reached(shop: Workshop) -> None:
    points = {name for name in crash.POINTS if name.startswith(("sandboxes.suspend.", "sandboxes.resume."))}
    sandbox = await made(shop)
    seen: set[str] = set()
    for point in points:
        with crash.armed(point, seen.add):
            await shop.sandboxes.suspend(ALICE, sandbox.id)
            await shop.sandboxes.resume(ALICE, sandbox.id)
    assert seen == points


async def test_its_record_keeps_no_readable_environment(shop: Workshop) -> None:
    sandbox = await made(shop, env={"SECRET": "s3cr3t"})
    stored = await shop.records.get_sandbox(sandbox.id)
    assert stored is not None
    assert stored.spec.env == {}
    assert stored.spec.sealed_env
    assert "s3cr3t" not in repr(stored)


async def test_another_sandboxes_environment_does_not_pass(shop: Workshop) -> None:
    one, other = await made(shop, env={"A": "1"}), await made(shop, env={"A": "2"})
    await shop.sandboxes.suspend(ALICE, one.id)
    stored, foreign = await shop.records.get_sandbox(one.id), await shop.records.get_sandbox(other.id)
    assert stored is not None and foreign is not None
    swapped = replace(stored, spec=replace(stored.spec, sealed_env=foreign.spec.sealed_env))
    await shop.records.swap_sandbox(swapped, None)
    with pytest.raises(Exception, match="not what was stored"):
        await shop.sandboxes.resume(ALICE, one.id)
    assert await state(shop, one) is SandboxState.SUSPENDED


async def test_its_idle_time_ends_in_rest(shop: Workshop) -> None:
    sandbox = await made(shop, resources=Resources(idle_s=0.1))
    await until(lambda: sandbox.id not in shop.host.sandboxes)
    for _ in range(100):
        if await state(shop, sandbox) is SandboxState.SUSPENDED:
            break
        await asyncio.sleep(0.02)
    assert (await shop.sandboxes.get(ALICE, sandbox.id)).reason == "idle"
    assert await said(shop, sandbox, "echo awake") == b"awake\n"


async def test_those_that_fall_idle_together_rest_however_slowly_that_is_recorded(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandboxes = [await made(shop, command=("sleep", "100")) for _ in range(5)]
    swap = shop.records.swap_sandbox

    async def slow(after: Sandbox, event: Event | None, **more: Any) -> Sandbox:
        await asyncio.sleep(0.4)
        return await swap(after, event, **more)

    monkeypatch.setattr(shop.records, "swap_sandbox", slow)
    for sandbox in sandboxes:
        shop.host.end(shop.host.sandboxes[sandbox.id], "idle")
    began = time.monotonic()
    await shop.sandboxes.reconciler.run()
    for sandbox in sandboxes:
        await until(lambda sandbox=sandbox: _rests(shop, sandbox))
    assert time.monotonic() - began < 1.2  # beside one another
    ends = [await shop.sandboxes.get(ALICE, sandbox.id) for sandbox in sandboxes]
    assert {(one.state, one.reason) for one in ends} == {(SandboxState.SUSPENDED, "idle")}


async def test_an_idle_end_while_it_is_suspended_leaves_its_ports_listening(shop: Workshop) -> None:
    sandbox = await made(shop, command=("listen", "8080"), network=NetworkMode.EXPOSED, ports=(Port(8080),))
    port = shop.sandboxes.ports.urls(sandbox)[0].host_port
    with crash.armed("sandboxes.suspend.recorded", lambda _: shop.host.end(shop.host.sandboxes[sandbox.id], "idle")):
        rested = await shop.sandboxes.suspend(ALICE, sandbox.id)
    assert (rested.state, rested.reason) == (SandboxState.SUSPENDED, "suspended")
    assert await round_trip(port) == b"ping"


async def test_an_end_that_was_told_and_not_recorded_is_told_to_the_next_server(shop: Workshop) -> None:
    sandbox = await made(shop)
    shop.records.down = True
    shop.host.end(shop.host.sandboxes[sandbox.id], "idle")
    await asyncio.sleep(0.1)
    await shop.sandboxes.close()
    shop.records.down = False
    await shop.restart()
    await until(lambda: sandbox.id not in {live.sandbox.id for live in shop.sandboxes._access.lives})
    assert (await shop.sandboxes.get(ALICE, sandbox.id)).reason == "idle"


async def test_a_server_that_nobody_asks_rests_and_the_next_request_wakes_it(shop: Workshop) -> None:
    of_its_own = {"network": NetworkMode.EXPOSED, "ports": (Port(8080),), "resources": Resources(idle_s=0.1)}
    sandbox = await made(shop, command=("listen", "8080"), **of_its_own)
    port = shop.sandboxes.ports.urls(sandbox)[0].host_port
    for _ in range(2):
        await until(lambda: sandbox.id not in shop.host.sandboxes)
        assert await round_trip(port, b"ping") == b"ping"


async def test_without_a_workspace_it_cannot_rest(shop: Workshop) -> None:
    bare = await shop.sandboxes.create(ALICE, SandboxSpec())
    with pytest.raises(Conflict, match="workspace"):
        await shop.sandboxes.suspend(ALICE, bare.id)
    await shop.create()
    reader = await shop.mount("w", read_only=True)
    with pytest.raises(Conflict, match="workspace"):
        await shop.sandboxes.suspend(ALICE, reader.id)
    assert await state(shop, bare) is SandboxState.RUNNING


async def test_a_connection_to_a_port_wakes_it(shop: Workshop) -> None:
    sandbox = await made(shop, command=("listen", "8080"), network=NetworkMode.EXPOSED, ports=(Port(8080),))
    await until(lambda: shop.host.sandboxes[sandbox.id].listening)
    port = shop.sandboxes.ports.urls(sandbox)[0].host_port
    rested = await shop.sandboxes.suspend(ALICE, sandbox.id)
    assert shop.sandboxes.ports.urls(rested)[0].host_port == port
    assert await round_trip(port, b"ping") == b"ping"
    assert await state(shop, sandbox) is SandboxState.RUNNING


async def test_whoever_connects_soon_after_it_woke_waits_until_it_listens(shop: Workshop) -> None:
    slow = ("sh", "-c", "sleep 0.5; listen 8080")
    sandbox = await made(shop, command=slow, network=NetworkMode.EXPOSED, ports=(Port(8080),))
    await until(lambda: shop.host.sandboxes[sandbox.id].listening)
    port = shop.sandboxes.ports.urls(sandbox)[0].host_port
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    waker = asyncio.create_task(round_trip(port))
    await until(lambda: _runs(shop, sandbox))
    assert await asyncio.gather(waker, *(round_trip(port) for _ in range(3))) == [b"ping"] * 4
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    await shop.sandboxes.ports.url(ALICE, sandbox.id, 8080)  # which wakes it too
    assert await round_trip(port) == b"ping"


async def test_a_connection_does_not_wait_for_ever_for_what_does_not_listen(shop: Workshop) -> None:
    shop.sandbox_limits = replace(shop.sandbox_limits, wake_port_s=0.3)
    await shop.restart()
    sandbox = await made(shop, command=("sleep", "100"), network=NetworkMode.EXPOSED, ports=(Port(8080),))
    port = shop.sandboxes.ports.urls(sandbox)[0].host_port
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    for at_least_s in (0.3, 0.0):
        began = time.monotonic()
        assert await round_trip(port) == b""
        assert at_least_s <= time.monotonic() - began < at_least_s + 1


async def test_after_a_restart_its_ports_still_wake_it(shop: Workshop) -> None:
    sandbox = await made(shop, command=("listen", "8080"), network=NetworkMode.EXPOSED, ports=(Port(8080),))
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    await shop.restart()
    rested = await shop.sandboxes.get(ALICE, sandbox.id)
    assert rested.state is SandboxState.SUSPENDED
    assert await round_trip(shop.sandboxes.ports.urls(rested)[0].host_port, b"ping") == b"ping"


async def test_what_a_revoked_key_left_at_rest_is_not_woken(shop: Workshop) -> None:
    sandbox = await made(shop, command=("listen", "8080"), network=NetworkMode.EXPOSED, ports=(Port(8080),))
    rested = await shop.sandboxes.suspend(ALICE, sandbox.id)
    await Keys(shop.records).revoke(ALICE.id)
    with pytest.raises(Forbidden, match="revoked"):
        await shop.sandboxes.resume(ALICE, sandbox.id)
    assert await round_trip(shop.sandboxes.ports.urls(rested)[0].host_port, b"ping") == b""
    assert await state(shop, sandbox) is SandboxState.SUSPENDED


async def test_many_who_come_at_once_wake_it_once(shop: Workshop) -> None:
    sandbox = await made(shop)
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    answers = await asyncio.gather(*(said(shop, sandbox, f"echo {n}") for n in range(8)))
    assert answers == [b"%d\n" % n for n in range(8)]
    events = [event.action for event in await shop.records.list_events(target=sandbox.id)]
    assert events.count("sandbox.resumed") == 1


@pytest.mark.parametrize(("end", "state_then"), [("stop", SandboxState.STOPPED), ("kill", SandboxState.KILLED)])
async def test_at_rest_it_can_be_ended_for_good(shop: Workshop, end: str, state_then: SandboxState) -> None:
    sandbox = await made(shop, network=NetworkMode.EXPOSED, ports=(Port(8080),))
    port = shop.sandboxes.ports.urls(sandbox)[0].host_port
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    with pytest.raises(Conflict, match="stop it first"):
        await shop.sandboxes.remove(ALICE, sandbox.id)
    assert (await getattr(shop.sandboxes, end)(ALICE, sandbox.id)).state is state_then
    with pytest.raises(Conflict):
        await said(shop, sandbox, "echo no")
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    await shop.sandboxes.remove(ALICE, sandbox.id)


async def test_rest_does_not_make_it_younger(shop: Workshop) -> None:
    sandbox = await made(shop, resources=Resources(max_age_s=0.4))
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    await asyncio.sleep(0.5)
    with pytest.raises(Conflict, match="killed"):
        await said(shop, sandbox, "echo no")
    assert (await shop.sandboxes.get(ALICE, sandbox.id)).reason == "max_age"


async def test_one_that_cannot_wake_rests_on(shop: Workshop) -> None:
    sandbox = await made(shop)
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    original = shop.runtime.make

    async def full(sandbox_id: str, spec: SandboxSpec) -> dict[str, object]:
        raise Unavailable("the host is full")

    shop.runtime.make = full  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="full"):
        await said(shop, sandbox, "echo no")
    assert await state(shop, sandbox) is SandboxState.SUSPENDED
    shop.runtime.make = original  # type: ignore[method-assign]
    assert await said(shop, sandbox, "echo yes") == b"yes\n"


async def test_waking_counts_against_the_quota(shop: Workshop) -> None:
    first = await made(shop)
    await shop.sandboxes.suspend(ALICE, first.id)
    for _ in range(shop.sandbox_limits.sandboxes_per_key):
        await shop.sandboxes.create(ALICE, SandboxSpec())
    with pytest.raises(QuotaExceeded):
        await said(shop, first, "echo no")
    assert await state(shop, first) is SandboxState.SUSPENDED


async def test_a_stranger_wakes_nothing(shop: Workshop) -> None:
    sandbox = await made(shop)
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    for act in (shop.sandboxes.resume, shop.sandboxes.suspend, shop.sandboxes.kill):
        with pytest.raises(NotFound, match="session not found"):
            await act(BOB, sandbox.id)
    assert await state(shop, sandbox) is SandboxState.SUSPENDED


async def test_one_that_was_lost_comes_back_when_asked(shop: Workshop) -> None:
    sandbox = await made(shop)
    await said(shop, sandbox, "echo kept > /workspace/note")
    shop.host.sandboxes.clear()
    await shop.sandboxes.reconciler.run()
    assert (await shop.sandboxes.get(ALICE, sandbox.id)).reason == "lost"
    await shop.sandboxes.resume(ALICE, sandbox.id)
    assert await said(shop, sandbox, "cat /workspace/note") == b"kept\n"


async def test_a_machine_that_restarted_lost_the_sandbox_and_not_its_files(shop: Workshop) -> None:
    sandbox = await made(shop)
    await said(shop, sandbox, "echo kept > /workspace/note")
    await shop.sandboxes.close()
    shop.host.sandboxes.clear()
    shop.host.boot_id = "another life"
    await shop.restart()
    lost = await shop.sandboxes.get(ALICE, sandbox.id)
    assert (lost.state, lost.reason) == (SandboxState.FAILED, "host_restarted")
    with pytest.raises(Conflict):
        await said(shop, sandbox, "echo no")  # its next use does not: it may have had more to lose than files
    assert (await shop.sandboxes.resume(ALICE, sandbox.id)).state is SandboxState.RUNNING
    assert await said(shop, sandbox, "cat /workspace/note") == b"kept\n"


async def test_after_the_machine_restarted_commands_in_a_workspace_go_on_in_another_sandbox(shop: Workshop) -> None:
    await shop.create()

    async def run(line: str) -> Ran:
        spec = ProcessSpec(("sh", "-c", line))
        return await shop.workspaces.executing.run(ALICE, "w", spec, lambda _: SandboxSpec())

    before = await run("echo kept > /workspace/note")
    await shop.sandboxes.close()
    shop.host.sandboxes.clear()
    shop.host.boot_id = "another life"
    await shop.restart()
    after = await run("cat /workspace/note")
    assert after.result.stdout == b"kept\n"
    assert after.workspace.sandbox_id != before.workspace.sandbox_id


@pytest.mark.parametrize("at", [SandboxState.SUSPENDING, SandboxState.RESUMING])
async def test_what_a_crash_cut_short_rests(shop: Workshop, at: SandboxState) -> None:
    sandbox = await made(shop)
    if at is SandboxState.RESUMING:
        await shop.sandboxes.suspend(ALICE, sandbox.id)
    stored = await shop.records.get_sandbox(sandbox.id)
    assert stored is not None
    await shop.sandboxes.close()
    await shop.records.swap_sandbox(stored.to(at), None)
    shop.host.sandboxes.clear()
    await shop.restart()
    assert await state(shop, sandbox) is SandboxState.SUSPENDED
    assert await said(shop, sandbox, "echo awake") == b"awake\n"


async def test_a_late_word_of_its_old_end_does_not_end_it(shop: Workshop) -> None:
    sandbox = await made(shop)
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    await shop.sandbox_parts.watching._record(Ended(sandbox.id, "lost"))  # pyright: ignore[reportPrivateUsage]
    assert await state(shop, sandbox) is SandboxState.SUSPENDED


async def test_what_it_used_adds_up_over_its_lives(shop: Workshop) -> None:
    sandbox = await made(shop)
    one_life = shop.host.sandboxes[sandbox.id].usage().cpu_s
    for lives in (1, 2, 3):
        await said(shop, sandbox, "echo woken")
        used = await shop.sandboxes.usage(ALICE, sandbox.id)
        listed = await shop.sandboxes.usages(ALICE, [await shop.sandboxes.get(ALICE, sandbox.id)])
        assert used.cpu_s == listed[sandbox.id].cpu_s == pytest.approx(lives * one_life)
        rested = await shop.sandboxes.suspend(ALICE, sandbox.id)
        assert rested.usage.cpu_s == pytest.approx(lives * one_life)
        await shop.restart()
    before = (await shop.sandboxes.get(ALICE, sandbox.id)).usage.duration_s
    await shop.sandboxes.resume(ALICE, sandbox.id)
    assert before <= (await shop.sandboxes.usage(ALICE, sandbox.id)).duration_s < before + 5


async def output(shop: Workshop, sandbox: Sandbox, offset: int = 0) -> tuple[int, bytes]:
    """Where its log begins, and all of it that there is now; it may run."""
    processes = shop.sandboxes.processes
    end = await processes.output_end(ALICE, sandbox.id)
    stream = await processes.attach(ALICE, sandbox.id, offset=offset, output_only=True)
    read = b""
    try:
        if end is None or stream.first_offset < end:
            async for _, data in stream:
                read += data
                assert stream.offset == stream.first_offset + len(read)
                if end is not None and stream.offset >= end:
                    break
    finally:
        await stream.close()
    return stream.first_offset, read


async def write(shop: Workshop, sandbox: Sandbox, data: bytes, offset: int) -> None:
    """To its main process, which says the same; returns when that is read."""
    stream = await shop.sandboxes.processes.attach(ALICE, sandbox.id, offset=offset)
    await stream.write_stdin(data)
    read = b""
    async for _, piece in stream:
        read += piece
        if len(read) >= len(data):
            break
    await stream.close()
    assert read == data


async def test_its_log_goes_on_from_life_to_life(shop: Workshop) -> None:
    sandbox = await made(shop, command=("cat",))
    written = b""
    for line in (b"first\n", b"second\n", b"third\n"):
        await write(shop, sandbox, line, len(written))
        written += line
        assert await output(shop, sandbox) == (0, written)
        await shop.sandboxes.suspend(ALICE, sandbox.id)
        await shop.restart()
        assert await output(shop, sandbox) == (0, written)
        assert await output(shop, sandbox, 3) == (3, written[3:])
        assert await state(shop, sandbox) is SandboxState.SUSPENDED  # looking at it wakes nobody
        with pytest.raises(Conflict, match="suspended"):
            await shop.sandboxes.processes.attach(ALICE, sandbox.id)
        await shop.sandboxes.resume(ALICE, sandbox.id)
    await write(shop, sandbox, b"last\n", len(written))
    stream = await shop.sandboxes.processes.attach(ALICE, sandbox.id)
    await stream.close_stdin()
    assert b"".join([data async for _, data in stream]) == written + b"last\n"
    assert stream.exit is not None and stream.exit.code == 0
    await stream.close()
    await until(lambda: not shop.host.sandboxes)
    assert await state(shop, sandbox) is SandboxState.STOPPED
    assert await output(shop, sandbox) == (0, written + b"last\n")
    await shop.sandboxes.remove(ALICE, sandbox.id)
    assert list((shop.data / "logs").iterdir()) == []


async def test_the_logs_of_its_lives_have_one_bound_together(shop: Workshop) -> None:
    shop.sandbox_limits = replace(shop.sandbox_limits, log_bytes_max=10_000)
    await shop.restart()
    sandbox = await made(shop, command=("cat",))
    for lives in (1, 2, 3):
        await write(shop, sandbox, b"%d" % lives * 6000, (lives - 1) * 6000)
        await shop.sandboxes.suspend(ALICE, sandbox.id)
        first, read = await output(shop, sandbox)
        assert (first + len(read), 6000 <= len(read) <= 10_000) == (lives * 6000, True)
        assert read.endswith(b"%d" % lives * 6000)
        await shop.sandboxes.resume(ALICE, sandbox.id)


async def test_a_keepalive_counts_from_now_whatever_came_before_its_rest(shop: Workshop) -> None:
    sandbox = await made(shop, resources=Resources(timeout_s=100.0))
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    shop.now += timedelta(hours=1)
    await shop.sandboxes.resume(ALICE, sandbox.id)
    await shop.sandboxes.keepalive(ALICE, sandbox.id, timeout_s=50.0)
    timeout_s = shop.host.sandboxes[sandbox.id].resources.timeout_s
    assert timeout_s is not None and 50 <= timeout_s < 100


async def test_what_it_wrote_before_its_rest_is_kept_as_long_as_its_record(shop: Workshop) -> None:
    sandbox = await made(shop, command=("cat",))
    await write(shop, sandbox, b"first\n", 0)
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    log = earlier_path(shop.data, sandbox.id)
    orphan = log.with_name("sess_00000000dead.earlier")
    for path in (log, orphan):
        path.touch()
        os.utime(path, (0, 0))
    await shop.sandboxes.reconciler.prune()
    assert log.exists() and not orphan.exists()
    await shop.sandboxes.resume(ALICE, sandbox.id)
    await shop.sandboxes.reconciler.prune()
    await write(shop, sandbox, b"second\n", len(b"first\n"))
    assert await output(shop, sandbox) == (0, b"first\nsecond\n")


async def test_an_exit_that_another_end_was_faster_than_takes_nothing_of_before_its_rest(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await made(shop, command=("cat",))
    await write(shop, sandbox, b"first\n", 0)
    await shop.sandboxes.suspend(ALICE, sandbox.id)
    await shop.sandboxes.resume(ALICE, sandbox.id)
    refused = asyncio.Event()

    async def faster(*_arguments: object, **_named: object) -> None:
        refused.set()
        raise Conflict("session already suspended")

    with monkeypatch.context() as patched:
        patched.setattr(Endings, "move", faster)
        stream = await shop.sandboxes.processes.attach(ALICE, sandbox.id)
        await stream.close_stdin()
        await stream.close()
        await asyncio.wait_for(refused.wait(), 10)
        await until(lambda: not log_path(shop.data, sandbox.id).exists())
    assert earlier_path(shop.data, sandbox.id).exists()


async def _runs(shop: Workshop, sandbox: Sandbox) -> bool:
    return await state(shop, sandbox) is SandboxState.RUNNING


async def _rests(shop: Workshop, sandbox: Sandbox) -> bool:
    return await state(shop, sandbox) is SandboxState.SUSPENDED
