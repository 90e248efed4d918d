"""Making, finding, listing and destroying sandboxes, and what a restart of the server finds."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from atoll.domain.errors import AtollError, Conflict, NotFound, Unsupported
from atoll.domain.ids import new_sandbox_id
from atoll.domain.process import MAIN, ProcessSpec
from atoll.domain.sandbox import NetworkMode, SandboxSpec
from atoll.runtimes.base import Capability, Report, Runtime
from atoll.testing.runtime_conformance.suite import (
    PATIENCE_S,
    Machine,
    Suite,
    made,
    next_event,
    read_all,
    read_until,
    sh,
)


class LifecycleChecks(Suite):
    async def test_a_sandbox_is_found_and_listed_until_it_is_destroyed(self, runtime: Runtime) -> None:
        sandbox_id = new_sandbox_id()
        handle = await runtime.make(sandbox_id, SandboxSpec())
        assert json.loads(json.dumps(handle)) == handle
        found = await runtime.find(sandbox_id)
        assert found is not None
        assert (found.id, found.handle) == (sandbox_id, handle)
        assert [item.id for item in await runtime.list()] == [sandbox_id]
        assert await runtime.destroy(sandbox_id) is not None
        assert await runtime.find(sandbox_id) is None
        assert await runtime.list() == []

    async def test_a_second_destroy_is_no_error(self, runtime: Runtime, sandbox_id: str) -> None:
        usage = await runtime.destroy(sandbox_id)
        assert usage is not None
        assert usage.duration_s > 0
        assert await runtime.destroy(sandbox_id) is None
        assert await runtime.destroy(new_sandbox_id()) is None

    async def test_concurrent_destroys_all_return(self, runtime: Runtime, sandbox_id: str) -> None:
        await asyncio.gather(*(runtime.destroy(sandbox_id) for _ in range(5)))
        assert await runtime.find(sandbox_id) is None

    async def test_making_an_id_that_exists_is_a_conflict_and_changes_nothing(
        self, runtime: Runtime, sandbox_id: str
    ) -> None:
        await sh(runtime.sidekick(sandbox_id), "echo kept > /tmp/mark")
        with pytest.raises(Conflict):
            await runtime.make(sandbox_id, SandboxSpec())
        assert (await sh(runtime.sidekick(sandbox_id), "cat /tmp/mark")).stdout == b"kept\n"

    async def test_an_id_can_be_made_again_and_starts_empty(self, runtime: Runtime, sandbox_id: str) -> None:
        await sh(runtime.sidekick(sandbox_id), "echo old > /tmp/mark")
        await runtime.destroy(sandbox_id)
        await runtime.make(sandbox_id, SandboxSpec())
        assert (await sh(runtime.sidekick(sandbox_id), "cat /tmp/mark")).exit.code == 1

    async def test_a_failed_make_leaves_nothing(self, runtime: Runtime) -> None:
        sandbox_id = new_sandbox_id()
        with pytest.raises(AtollError):
            await runtime.make(sandbox_id, SandboxSpec(layers=("/nonexistent/layer",)))
        assert await runtime.find(sandbox_id) is None
        assert await runtime.list() == []
        await runtime.make(sandbox_id, SandboxSpec())

    async def test_a_network_mode_that_is_not_declared_is_unsupported(self, runtime: Runtime) -> None:
        if Capability.OUTGOING in runtime.capabilities:
            pytest.skip("this runtime has every network mode")
        for mode in (NetworkMode.OUTGOING, NetworkMode.EXPOSED):
            with pytest.raises(Unsupported):
                await runtime.make(new_sandbox_id(), SandboxSpec(network=mode))
        assert await runtime.list() == []

    async def test_many_at_once_are_all_made_and_all_destroyed(self, runtime: Runtime) -> None:
        ids = await asyncio.gather(*(made(runtime) for _ in range(12)))
        assert {item.id for item in await runtime.list()} == set(ids)
        results = await asyncio.gather(*(sh(runtime.sidekick(name), f"echo {name}") for name in ids))
        assert [result.stdout.decode().strip() for result in results] == list(ids)
        await asyncio.gather(*(runtime.destroy(name) for name in ids))
        assert await runtime.list() == []

    async def test_a_destroy_while_it_is_made_leaves_nothing_or_all_of_it(self, runtime: Runtime) -> None:
        sandbox_id = new_sandbox_id()
        making = asyncio.create_task(runtime.make(sandbox_id, SandboxSpec()))
        await asyncio.sleep(0.001)
        await runtime.destroy(sandbox_id)
        await asyncio.wait({making}, timeout=PATIENCE_S)
        lives = making.exception() is None and await runtime.find(sandbox_id) is not None
        assert [item.id for item in await runtime.list()] == ([sandbox_id] if lives else [])
        await runtime.destroy(sandbox_id)
        assert await runtime.list() == []

    async def test_what_is_destroyed_answers_not_found(self, runtime: Runtime, sandbox_id: str) -> None:
        inside = runtime.sidekick(sandbox_id)
        following = await inside.start(ProcessSpec(("sleep", "100")))
        await runtime.destroy(sandbox_id)
        for call in (
            lambda: inside.ping(),
            lambda: inside.start(ProcessSpec(("true",))),
            lambda: inside.read_file("/etc/passwd"),
            lambda: runtime.stats(sandbox_id),
            lambda: runtime.dial(sandbox_id, 80),
            lambda: runtime.set_deadline(sandbox_id, SandboxSpec().resources),
        ):
            with pytest.raises(NotFound):
                await call()
        with pytest.raises(NotFound):
            await read_all(following)
        await following.close()

    async def test_destroy_is_quick_whatever_runs_inside(self, runtime: Runtime) -> None:
        stubborn = ("sh", "-c", "trap '' TERM HUP INT; sleep 100")
        sandbox_id = await made(runtime, SandboxSpec(command=stubborn))
        for _ in range(5):
            await (await runtime.sidekick(sandbox_id).start(ProcessSpec(stubborn))).close()
        started = time.monotonic()
        await runtime.destroy(sandbox_id)
        assert time.monotonic() - started < 5

    async def test_the_main_process_is_followed_from_its_first_byte(self, runtime: Runtime) -> None:
        sandbox_id = await made(runtime, SandboxSpec(command=("sh", "-c", "echo first; cat; exit 5")))
        stream = await runtime.sidekick(sandbox_id).attach(MAIN)
        assert await read_until(stream, b"first\n") == b"first\n"
        await stream.write_stdin(b"more\n")
        await stream.close_stdin()
        assert await read_all(stream) == b"more\n"
        assert stream.exit is not None
        assert stream.exit.code == 5
        await stream.close()

    async def test_the_end_of_the_main_process_does_not_end_the_sandbox(self, runtime: Runtime) -> None:
        sandbox_id = await made(runtime, SandboxSpec(command=("sh", "-c", "echo out; exit 7")))
        assert (await runtime.sidekick(sandbox_id).wait(MAIN)).code == 7
        assert await runtime.find(sandbox_id) is not None
        assert await next_event(runtime, within_s=0.2) is None
        stream = await runtime.sidekick(sandbox_id).attach(MAIN)
        assert await read_all(stream) == b"out\n"
        await stream.close()

    async def test_a_main_program_that_does_not_exist_ends_with_127(self, runtime: Runtime) -> None:
        sandbox_id = await made(runtime, SandboxSpec(command=("no-such-program",)))
        assert (await runtime.sidekick(sandbox_id).wait(MAIN)).code == 127

    async def test_the_environment_and_work_dir_are_the_specs(self, runtime: Runtime) -> None:
        spec = SandboxSpec(env={"COLOUR": "blue"}, work_dir="/tmp/deep/er")
        inside = runtime.sidekick(await made(runtime, spec))
        assert (await sh(inside, "echo $COLOUR; pwd")).stdout == b"blue\n/tmp/deep/er\n"

    async def test_nothing_of_the_servers_environment_is_inside(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CANARY_OF_THE_SERVER", "tweet")
        runtime = machine()
        await runtime.start()
        try:
            inside = runtime.sidekick(await made(runtime))
            assert b"tweet" not in (await sh(inside, "env")).stdout
        finally:
            await runtime.shutdown()

    async def test_two_sandboxes_share_no_files(self, runtime: Runtime) -> None:
        one, other = await made(runtime), await made(runtime)
        await sh(runtime.sidekick(one), "echo secret > /tmp/mine")
        assert (await sh(runtime.sidekick(other), "cat /tmp/mine")).exit.code == 1

    async def test_figures_grow_and_are_told_at_the_end(self, runtime: Runtime, sandbox_id: str) -> None:
        first = await runtime.stats(sandbox_id)
        await asyncio.sleep(0.05)
        second = await runtime.stats(sandbox_id)
        assert second.duration_s > first.duration_s
        final = await runtime.destroy(sandbox_id)
        assert final is not None
        assert final.duration_s >= second.duration_s

    async def test_a_restart_finds_everything_and_loses_no_output(self, machine: Machine) -> None:
        before = machine()
        await before.start()
        try:
            script = "echo before; cat; exit 9"
            sandbox_id = await made(before, SandboxSpec(command=("sh", "-c", script)))
            handle = (await before.find(sandbox_id) or pytest.fail("not found")).handle
            job = await before.sidekick(sandbox_id).start(ProcessSpec(("sh", "-c", "sleep 0.2; echo late")))
            job_id = job.id
            await job.close()
            await before.close()
            await before.close()
            await asyncio.sleep(0.3)
            after = machine()
            await after.start()
            try:
                found = await after.list()
                assert [(item.id, item.handle) for item in found] == [(sandbox_id, handle)]
                inside = after.sidekick(sandbox_id)
                job = await inside.attach(job_id)
                assert await read_all(job) == b"late\n"
                await job.close()
                stream = await inside.attach(MAIN)
                await stream.write_stdin(b"after\n")
                await stream.close_stdin()
                assert await read_all(stream) == b"before\nafter\n"
                assert stream.exit is not None
                assert stream.exit.code == 9
                await stream.close()
            finally:
                await after.shutdown()
        finally:
            await before.close()

    async def test_shutdown_leaves_nothing(self, machine: Machine) -> None:
        runtime = machine()
        await runtime.start()
        sandbox_id = await made(runtime, SandboxSpec(command=("sleep", "100")))
        await runtime.close()
        assert await machine().shutdown() == 1  # by one that has not started
        again = machine()
        await again.start()
        try:
            assert await again.list() == []
            ended = await next_event(again)
            assert ended is not None
            assert (ended.id, ended.reason) == (sandbox_id, "killed")
        finally:
            await again.shutdown()

    async def test_the_doctor_proves_something_and_leaves_nothing(self, runtime: Runtime) -> None:
        report = await runtime.doctor()
        assert isinstance(report, Report)
        assert report.tier in ("root", "rootless", "unavailable")
        assert report.checks
        for check in report.checks:
            assert check.ok or check.fix, f"{check.name} fails and says no fix"
        assert await runtime.list() == []
