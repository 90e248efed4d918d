"""Running commands: codes, signals, stdin, deadlines, and what is left when one has ended."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from atoll.domain.errors import Conflict, InvalidInput, NotFound
from atoll.domain.process import ProcessSpec
from atoll.runtimes.base import Runtime
from atoll.sidekick.client import SidekickClient
from atoll.testing.runtime_conformance.suite import PATIENCE_S, Suite, read_all, read_until, sh, until

COUNT_SLEEPERS = (
    "n=0; for d in /proc/[0-9]*; do read -r line < $d/comm || continue; "
    '[ "$line" = sleep ] && n=$((n+1)); done 2>/dev/null; echo $n'
)


class ProcessChecks(Suite):
    async def test_every_exit_code_is_told_exactly(self, inside: SidekickClient) -> None:
        for code in range(256):
            end = (await sh(inside, f"exit {code}")).exit
            assert (end.code, end.signal, end.timed_out) == (code, None, False)

    @pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 13, 14, 15])
    async def test_an_end_by_signal_is_told_apart_from_a_code(self, inside: SidekickClient, number: int) -> None:
        end = (await sh(inside, f"kill -{number} $$; sleep 5")).exit
        assert (end.code, end.signal) == (128 + number, number)
        assert (await sh(inside, f"exit {128 + number}")).exit.signal is None

    async def test_stdout_and_stderr_are_told_apart(self, inside: SidekickClient) -> None:
        result = await sh(inside, "echo out; echo err >&2")
        assert (result.stdout, result.stderr, result.truncated) == (b"out\n", b"err\n", False)

    async def test_a_missing_program_ends_with_127_and_says_so(self, inside: SidekickClient) -> None:
        result = await inside.run(ProcessSpec(("no-such-program",)))
        assert result.exit.code == 127
        assert b"no-such-program" in result.stderr
        started, missing = [await inside.start(ProcessSpec((name,))) for name in ("true", "no-such-program")]
        for stream in (started, missing):
            await stream.close()
        assert started.pid > 0 and missing.pid == 0

    async def test_arguments_arrive_as_they_are(self, inside: SidekickClient) -> None:
        result = await inside.run(ProcessSpec(("echo", "a b", "$HOME", "*", "ü", "'")))
        assert result.stdout.decode() == "a b $HOME * ü '\n"

    async def test_env_is_added_and_cwd_is_taken(self, inside: SidekickClient) -> None:
        await inside.make_dir("/tmp/here")
        result = await sh(inside, "echo $SIZE; pwd", env={"SIZE": "12"}, cwd="/tmp/here")
        assert result.stdout == b"12\n/tmp/here\n"

    async def test_a_cwd_that_does_not_exist_is_named(self, inside: SidekickClient) -> None:
        with pytest.raises(InvalidInput) as caught:
            await inside.start(ProcessSpec(("true",), cwd="/no/such/folder"))
        assert caught.value.field == "cwd"

    async def test_stdin_arrives_and_its_end_too(self, inside: SidekickClient) -> None:
        data = bytes(range(256)) * 4096
        result = await inside.run(ProcessSpec(("cat",), stdin=True), stdin=data)
        assert result.stdout == data
        assert result.exit.code == 0

    async def test_a_program_may_end_before_its_stdin_does(self, inside: SidekickClient) -> None:
        spec = ProcessSpec(("sh", "-c", "head -c 1 > /dev/null; echo done"), stdin=True)
        for _ in range(10):
            result = await inside.run(spec, stdin=bytes(3_000_000))
            assert (result.stdout, result.exit.code) == (b"done\n", 0)

    async def test_without_stdin_a_reader_sees_the_end_at_once(self, inside: SidekickClient) -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert (await inside.run(ProcessSpec(("cat",)))).stdout == b""

    async def test_stdin_that_nobody_reads_is_bounded(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("sleep", "100"), stdin=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                for _ in range(256):
                    await stream.write_stdin(bytes(2**20))
        assert (await inside.stop(stream.id, 0)).code in (137, 143)
        await stream.close()

    async def test_a_deadline_ends_it_and_says_so(self, inside: SidekickClient) -> None:
        started = time.monotonic()
        end = (await sh(inside, "sleep 100", timeout_s=0.3)).exit
        assert 0.25 < time.monotonic() - started < 3
        assert end.timed_out
        assert end.signal in (signal.SIGTERM, signal.SIGKILL)
        assert 0.25 < end.duration_s < 3

    async def test_a_deadline_ends_what_ignores_it_too(self, inside: SidekickClient) -> None:
        end = (await sh(inside, "trap '' TERM HUP INT; sleep 100", timeout_s=0.3)).exit
        assert (end.timed_out, end.signal) == (True, signal.SIGKILL)

    async def test_a_deadline_leaves_no_child(self, inside: SidekickClient) -> None:
        self.need("shell", "proc")
        script = "trap '' TERM; (trap '' TERM; sleep 300) & sleep 300 & wait; sleep 300"
        assert (await sh(inside, script, timeout_s=0.3)).exit.timed_out

        async def none_left() -> bool:
            return (await sh(inside, COUNT_SLEEPERS)).stdout == b"0\n"

        await until(none_left)

    async def test_stop_sends_term_and_waits_then_kills_the_whole_tree(self, inside: SidekickClient) -> None:
        polite = await inside.start(ProcessSpec(("sleep", "100")))
        end = await inside.stop(polite.id, 5)
        assert (end.signal, end.timed_out) == (signal.SIGTERM, False)
        rude = await inside.start(ProcessSpec(("sh", "-c", "trap '' TERM; echo deaf; sleep 100")))
        await read_until(rude, b"deaf\n")
        started = time.monotonic()
        assert (await inside.stop(rude.id, 0.3)).signal == signal.SIGKILL
        assert 0.25 < time.monotonic() - started < 3
        await polite.close()
        await rude.close()

    async def test_stopping_all_reaches_every_process_and_returns_when_nothing_is_left(
        self, inside: SidekickClient
    ) -> None:
        # A shell says so on stderr when the TERM also meets what its trap has just started.
        script = "exec 2>/dev/null; trap 'sleep 0.3; echo cleaned' TERM; echo ready; sleep 100 & wait $!"
        script = script if "shell" in self.features else ""
        polite = await inside.start(ProcessSpec(("sh", "-c", script) if script else ("sleep", "100")))
        if script:
            await read_until(polite, b"ready\n")
        other = await inside.start(ProcessSpec(("sleep", "100"), tty=True))
        async with asyncio.timeout(PATIENCE_S):
            assert await inside.stop_all(5) is None  # it has no main process
        ends = {info.id: info.exit for info in await inside.processes()}
        assert ends[polite.id] is not None
        end = ends[other.id]
        assert end is not None
        assert end.signal == signal.SIGTERM
        if script:
            assert await read_all(polite) == b"cleaned\n"
        await polite.close()
        await other.close()

    async def test_stopping_all_kills_what_is_left_after_the_grace(self, inside: SidekickClient) -> None:
        rude = await inside.start(ProcessSpec(("sh", "-c", "trap '' TERM; echo deaf; sleep 100")))
        await read_until(rude, b"deaf\n")
        started = time.monotonic()
        await inside.stop_all(0.3)
        assert 0.25 < time.monotonic() - started < 3
        assert (await inside.wait(rude.id)).signal == signal.SIGKILL
        await rude.close()

    async def test_stopping_all_reaches_what_left_its_starter(self, inside: SidekickClient) -> None:
        self.need("shell", "proc")
        await sh(inside, "(setsid sh -c \"trap 'echo told >/tmp/told; exit' TERM; sleep 300 & wait\" &) ; sleep 0.3")
        await inside.stop_all(5)
        assert (await sh(inside, "cat /tmp/told")).stdout == b"told\n"
        assert (await sh(inside, COUNT_SLEEPERS)).stdout == b"0\n"

    async def test_stopping_what_has_ended_tells_its_end(self, inside: SidekickClient) -> None:
        result = await sh(inside, "exit 4")
        assert (await inside.stop(result.process_id, 1)).code == 4

    async def test_a_signal_reaches_it_and_not_what_has_ended(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("sleep", "100")))
        await inside.signal(stream.id, signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE_S):
            assert (await inside.wait(stream.id)).signal == signal.SIGUSR1
        with pytest.raises(Conflict):
            await inside.signal(stream.id, signal.SIGUSR1)
        await stream.close()

    async def test_an_unknown_process_is_not_found(self, inside: SidekickClient) -> None:
        for call in (
            lambda: inside.attach("p999"),
            lambda: inside.wait("p999"),
            lambda: inside.signal("p999", 15),
            lambda: inside.stop("p999", 1),
            lambda: inside.attach("main"),
        ):
            with pytest.raises(NotFound):
                await call()

    async def test_processes_are_listed_with_their_ends(self, inside: SidekickClient) -> None:
        ended = await sh(inside, "echo 12345; exit 3")
        running = await inside.start(ProcessSpec(("sleep", "100"), tty=True))
        listed = {info.id: info for info in await inside.processes()}
        assert listed[ended.process_id].exit == ended.exit
        assert listed[ended.process_id].output_end == 6
        assert listed[running.id].exit is None
        assert listed[running.id].argv == ("sleep", "100")
        assert listed[running.id].tty
        assert listed[running.id].pid > 0
        assert abs(listed[running.id].started_at - time.time()) < 60
        await running.close()

    async def test_everybody_who_waits_hears_the_end(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("sh", "-c", "sleep 0.2; exit 6")))
        async with asyncio.timeout(PATIENCE_S):
            ends = await asyncio.gather(*(inside.wait(stream.id) for _ in range(5)))
        assert {end.code for end in ends} == {6}
        assert len(set(ends)) == 1
        await stream.close()

    async def test_orphans_do_not_hold_a_command_back(self, inside: SidekickClient) -> None:
        self.need("shell")
        started = time.monotonic()
        result = await sh(inside, "sleep 100 & (setsid sleep 100 &) ; echo done")
        assert result.stdout == b"done\n"
        assert time.monotonic() - started < 5

    async def test_nothing_stays_a_zombie(self, inside: SidekickClient) -> None:
        self.need("shell", "proc")
        await sh(inside, "i=0; while [ $i -lt 50 ]; do (true &) ; i=$((i+1)); done")

        async def none_left() -> bool:
            return (await sh(inside, "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z ' || true")).stdout == b"0\n"

        await until(none_left)

    async def test_many_commands_at_once_do_not_mix(self, runtime: Runtime, inside: SidekickClient) -> None:
        results = await asyncio.gather(*(sh(inside, f"echo {n}; exit {n}") for n in range(20)))
        assert [(r.stdout, r.exit.code) for r in results] == [(b"%d\n" % n, n) for n in range(20)]

    async def test_a_client_that_goes_away_leaves_its_process_running(self, inside: SidekickClient) -> None:
        stream = await inside.start(ProcessSpec(("sh", "-c", "sleep 0.3; echo still here")))
        await stream.close()
        await stream.close()
        again = await inside.attach(stream.id)
        assert await read_all(again) == b"still here\n"
        await again.close()
