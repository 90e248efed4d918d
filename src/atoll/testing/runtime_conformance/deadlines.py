"""Deadlines: sandboxes that end by themselves, and the one event that says so."""

from __future__ import annotations

import asyncio
import time

from atoll.domain.process import ProcessSpec
from atoll.domain.sandbox import Resources, SandboxSpec
from atoll.runtimes.base import Runtime
from atoll.testing.runtime_conformance.suite import Machine, Suite, made, next_event, sh

LATE_S = 3.0


def _limited(**limits: float) -> SandboxSpec:
    return SandboxSpec(resources=Resources(**limits))  # type: ignore[arg-type]


class DeadlineChecks(Suite):
    async def test_a_timeout_ends_it_once_and_on_time(self, runtime: Runtime) -> None:
        started = time.monotonic()
        sandbox_id = await made(runtime, SandboxSpec(command=("sleep", "100"), resources=Resources(timeout_s=0.5)))
        ended = await next_event(runtime)
        assert ended is not None
        assert (ended.id, ended.reason) == (sandbox_id, "timeout")
        assert ended.usage.duration_s >= 0.4
        assert 0.4 < time.monotonic() - started < 0.5 + LATE_S
        assert await runtime.find(sandbox_id) is None
        assert await runtime.destroy(sandbox_id) is None
        assert await next_event(runtime, within_s=0.3) is None

    async def test_an_idle_one_ends_and_a_busy_one_does_not(self, runtime: Runtime) -> None:
        idle, busy = await made(runtime, _limited(idle_s=0.6)), await made(runtime, _limited(idle_s=0.6))
        job = await runtime.sidekick(busy).start(ProcessSpec(("sleep", "100")))
        ended = await next_event(runtime)
        assert ended is not None
        assert (ended.id, ended.reason) == (idle, "idle")
        assert await next_event(runtime, within_s=0.8) is None
        await runtime.sidekick(busy).stop(job.id, 0)
        await job.close()
        ended = await next_event(runtime)
        assert ended is not None
        assert (ended.id, ended.reason) == (busy, "idle")

    async def test_requests_keep_it_awake(self, runtime: Runtime) -> None:
        sandbox_id = await made(runtime, _limited(idle_s=0.8))
        for _ in range(8):
            await asyncio.sleep(0.2)
            await sh(runtime.sidekick(sandbox_id), "true")
        assert await runtime.find(sandbox_id) is not None

    async def test_nothing_passes_the_maximum_age(self, runtime: Runtime) -> None:
        sandbox_id = await made(runtime, _limited(max_age_s=0.5, timeout_s=60))
        await runtime.set_deadline(sandbox_id, Resources(max_age_s=0.5, timeout_s=120))
        ended = await next_event(runtime)
        assert ended is not None
        assert (ended.id, ended.reason) == (sandbox_id, "max_age")

    async def test_a_deadline_can_be_moved_and_counts_from_the_start(self, runtime: Runtime) -> None:
        started = time.monotonic()
        later, sooner = await made(runtime, _limited(timeout_s=0.4)), await made(runtime, _limited(timeout_s=60))
        await runtime.set_deadline(later, Resources(timeout_s=60))
        await runtime.set_deadline(sooner, Resources(timeout_s=1.0))
        ended = await next_event(runtime)
        assert ended is not None
        assert (ended.id, ended.reason) == (sooner, "timeout")
        assert 0.9 < time.monotonic() - started < 1.0 + LATE_S
        assert await runtime.find(later) is not None

    async def test_a_destroy_makes_no_event(self, runtime: Runtime) -> None:
        sandbox_id = await made(runtime, _limited(timeout_s=0.4))
        await runtime.destroy(sandbox_id)
        assert await next_event(runtime, within_s=0.7) is None

    async def test_what_ended_while_nobody_listened_is_told_once(self, machine: Machine) -> None:
        before = machine()
        await before.start()
        try:
            sandbox_id = await made(before, _limited(timeout_s=0.3))
            await before.close()
            await asyncio.sleep(1.0)
            after = machine()
            await after.start()
            try:
                assert await after.find(sandbox_id) is None
                ended = await next_event(after)
                assert ended is not None
                assert (ended.id, ended.reason) == (sandbox_id, "timeout")
                assert await next_event(after, within_s=0.3) is None
            finally:
                await after.shutdown()
        finally:
            await before.close()

    async def test_an_end_is_told_in_each_life_until_it_is_forgotten(self, machine: Machine) -> None:
        lives = [machine() for _ in range(3)]
        try:
            await lives[0].start()
            sandbox_id = await made(lives[0], _limited(timeout_s=0.3))
            told = [await next_event(lives[0])]
            await lives[0].close()
            await lives[1].start()
            told += [await next_event(lives[1])]
            for _ in range(2):  # the second is no error
                await lives[1].forget(sandbox_id)
            await lives[1].close()
            await lives[2].start()
            told += [await next_event(lives[2], within_s=0.3)]
            assert [None if ended is None else ended.id for ended in told] == [sandbox_id, sandbox_id, None]
            await lives[2].shutdown()
        finally:
            for life in lives:
                await life.close()
